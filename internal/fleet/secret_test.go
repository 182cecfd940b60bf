package fleet_test

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/skerry-dev/skerry/internal/fleet"
)

// TestSecretValueIsNotShown prints a value, and what holds one, in every way that code prints by accident.
func TestSecretValueIsNotShown(t *testing.T) {
	const plain = "hunter2-plain"
	v := fleet.SecretValue(plain)
	holder := struct {
		Name   string
		Value  fleet.SecretValue
		Values map[string]fleet.SecretValue
		List   []fleet.SecretValue
		Ptr    *fleet.SecretValue
	}{"db", v, map[string]fleet.SecretValue{"password": v}, []fleet.SecretValue{v}, &v}
	said := map[string]string{}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%c", "%o", "%08b", "%U"} {
		said["value "+verb] = fmt.Sprintf(verb, v)
		said["pointer "+verb] = fmt.Sprintf(verb, &v)
		said["holder "+verb] = fmt.Sprintf(verb, holder)
	}
	said["print"] = fmt.Sprint(v, holder)
	said["error"] = fmt.Errorf("bad: %v", v).Error()
	for name, what := range map[string]any{"value": v, "holder": holder, "key": map[string]any{"v": v}} {
		data, err := json.Marshal(what)
		if err != nil {
			t.Fatal(err)
		}
		said["json "+name] = string(data)
		var text, object bytes.Buffer
		slog.New(slog.NewTextHandler(&text, nil)).Info("m", "v", what)
		slog.New(slog.NewJSONHandler(&object, nil)).Info("m", "v", what)
		said["slog text "+name], said["slog json "+name] = text.String(), object.String()
	}
	data, err := xml.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	said["xml"] = string(data)
	for how, text := range said {
		for _, form := range []string{plain, fmt.Sprintf("%x", plain), fmt.Sprintf("%X", plain), "aHVudGVyMi1wbGFpbg", fmt.Sprint([]byte(plain))[1:20]} {
			if strings.Contains(text, form) {
				t.Errorf("%s shows the value: %s", how, text)
			}
		}
	}
	if string(v) != plain {
		t.Error("the value itself is lost")
	}
}
