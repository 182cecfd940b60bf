package firstboot

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/skerry-dev/skerry/internal/enroll"
	"github.com/skerry-dev/skerry/internal/sitecli/bootfile"
	"github.com/skerry-dev/skerry/internal/testenv"
)

func file() bootfile.File {
	return bootfile.File{Join: enroll.NewToken([]string{"https://hub.example.com"}, [32]byte{1}, time.Unix(1, 0)).Text(), RemoveSecret: true}
}

func TestConfig(t *testing.T) {
	text, err := Config("Lets one machine join.", file())
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(string(text), "# Lets one machine join.\njoin: skj1.") {
		t.Errorf("%s", text)
	}
	if _, err := bootfile.Parse(text); err != nil {
		t.Errorf("the agent cannot read it: %v", err)
	}
}

func TestUserData(t *testing.T) {
	f := file()
	text, err := UserData("Lets one machine join.", f, "https://hub.example.com/install.sh", strings.Repeat("ab", 32))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(string(text), "#cloud-config\n") || strings.Count(string(text), f.Join) != 1 {
		t.Errorf("the token must stand in it once:\n%s", text)
	}
	var parsed cloudConfig
	if err := yaml.UnmarshalStrict(text, &parsed); err != nil {
		t.Fatal(err)
	}
	if got, err := bootfile.Parse([]byte(parsed.WriteFiles[0].Content)); err != nil || got.Join != f.Join {
		t.Errorf("the agent cannot read the file: %v", err)
	}
	if args := strings.Join(parsed.RunCommand[0], " "); strings.Contains(args, f.Join) {
		t.Errorf("cloud-init logs its commands, and this holds the token: %s", args)
	}
}

// TestUserDataSchema asks cloud-init itself.
func TestUserDataSchema(t *testing.T) {
	testenv.Require(t, testenv.Tool("cloud-init"))
	text, err := UserData("Lets one machine join.", file(), "https://hub.example.com/install.sh", strings.Repeat("ab", 32))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "user-data")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("cloud-init", "schema", "--config-file", path).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "Valid") {
		t.Errorf("cloud-init refuses it: %v\n%s\n%s", err, out, text)
	}
}

// TestUserDataScript runs what cloud-init would: the script that has the digest runs, another does not.
func TestUserDataScript(t *testing.T) {
	testenv.Require(t, testenv.Tool("sh"), testenv.Tool("curl"), testenv.Tool("sha256sum"))
	dir := t.TempDir()
	script := filepath.Join(dir, "install.sh")
	if err := os.WriteFile(script, []byte("echo ran with $# arguments\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		reason, digest string
		runs           bool
	}{
		{"the hub's script", "", true},
		{"another one", strings.Repeat("00", 32), false},
	} {
		if tt.runs {
			sum, err := exec.Command("sha256sum", script).Output()
			if err != nil {
				t.Fatal(err)
			}
			tt.digest = string(sum[:64])
		}
		text, err := UserData("", file(), "file://"+script, tt.digest)
		if err != nil {
			t.Fatal(err)
		}
		var parsed cloudConfig
		if err := yaml.Unmarshal(text, &parsed); err != nil {
			t.Fatal(err)
		}
		command := parsed.RunCommand[0]
		out, err := exec.Command(command[0], command[1:]...).CombinedOutput()
		if ran := strings.Contains(string(out), "ran with 0 arguments"); ran != tt.runs || (err == nil) != tt.runs {
			t.Errorf("%s: %v\n%s", tt.reason, err, out)
		}
	}
}
