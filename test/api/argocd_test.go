package apitest

import (
	"encoding/json"
	"os"
	"testing"

	lua "github.com/yuin/gopher-lua"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

// argoHealth runs the health check that deploy/argocd gives to Argo CD, in the Lua of Argo CD, on an object.
func argoHealth(t *testing.T, u *unstructured.Unstructured) (status, message string) {
	t.Helper()
	raw, err := os.ReadFile("../../deploy/argocd/health.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var config struct{ Data map[string]string }
	if err := yaml.Unmarshal(raw, &config); err != nil {
		t.Fatal(err)
	}
	script, ok := config.Data["resource.customizations.health.skerry.dev_"+u.GetKind()]
	if !ok {
		t.Fatalf("deploy/argocd has no check for kind %s", u.GetKind())
	}
	data, err := u.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	var object any
	if err := json.Unmarshal(data, &object); err != nil {
		t.Fatal(err)
	}
	l := lua.NewState()
	defer l.Close()
	l.SetGlobal("obj", luaValue(l, object))
	if err := l.DoString(script); err != nil {
		t.Fatal(err)
	}
	answer, ok := l.Get(-1).(*lua.LTable)
	if !ok {
		t.Fatalf("the check answers with %v", l.Get(-1))
	}
	return answer.RawGetString("status").String(), answer.RawGetString("message").String()
}

func luaValue(l *lua.LState, v any) lua.LValue {
	switch v := v.(type) {
	case map[string]any:
		t := l.NewTable()
		for k, item := range v {
			t.RawSetString(k, luaValue(l, item))
		}
		return t
	case []any:
		t := l.NewTable()
		for _, item := range v {
			t.Append(luaValue(l, item))
		}
		return t
	case string:
		return lua.LString(v)
	case float64:
		return lua.LNumber(v)
	case bool:
		return lua.LBool(v)
	}
	return lua.LNil
}
