package bootfile

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/skerry-dev/skerry/internal/enroll"
)

func token() string {
	return enroll.NewToken([]string{"https://hub.example.com:7443"}, [32]byte{1}, time.Unix(1_800_000_000, 0)).Text()
}

func claim() string {
	return enroll.ClaimCode{Token: enroll.NewToken([]string{"https://hub.example.com"}, [32]byte{1}, time.Unix(1, 0))}.Text()
}

func TestParse(t *testing.T) {
	join, code, none := token(), claim(), ""
	tests := []struct {
		reason, content string
		want            File
		fails           string // part of the error
	}{
		{"a token is enough", "join: " + join + "\n", File{Join: join}, ""},
		{"JSON is YAML", `{"claim": "` + code + `", "gateway-name": ["a.example"], "remove-secret": true}`, File{Claim: code, GatewayNames: []string{"a.example"}, RemoveSecret: true}, ""},
		{"no address of metrics is not the same as none said", "admin-addr: ''\n", File{AdminAddr: &none}, ""},
		{"settings alone", "gateway-addr: 0.0.0.0:443\nproxy: http://proxy:3128\nlog-level: debug\n", File{GatewayAddr: "0.0.0.0:443", Proxy: "http://proxy:3128", LogLevel: "debug"}, ""},
		{"a slip of the pen", "join: " + join + "\ngatewayaddr: x\n", File{}, "line 2: field gatewayaddr not found"},
		{"a field that is there twice", "log-level: info\nlog-level: debug\n", File{}, "line 2"},
		{"a list where a word is wanted", "log-level: [a]\n", File{}, "line 1"},
		{"no mapping", "- a\n", File{}, "line 1"},
		{"nothing", "", File{}, "empty"},
		{"a comment alone", "# later\n", File{}, "empty"},
		{"two documents", "log-level: info\n---\nlog-level: debug\n", File{}, "more than one document"},
		{"both ways to join", "join: " + join + "\nclaim: " + code + "\n", File{}, "join and claim"},
		{"a token that lost its end", "join: " + join[:len(join)-4] + "\n", File{}, "join: it was cut short"},
		{"a claim code as a token", "join: " + code + "\n", File{}, "join: it does not begin with skj1."},
		{"a path that depends on where the agent was started", "ca-file: ca.pem\n", File{}, "ca-file"},
		{"more than any configuration", "# " + strings.Repeat("x", MaxSize), File{}, "larger than"},
	}
	for _, tt := range tests {
		t.Run(tt.reason, func(t *testing.T) {
			got, err := Parse([]byte(tt.content))
			if tt.fails == "" {
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(tt.want, got); diff != "" {
					t.Errorf("-want +got:\n%s", diff)
				}
				return
			}
			if !errors.Is(err, ErrFile) || !strings.Contains(err.Error(), tt.fails) || strings.Contains(err.Error(), "bootfile.") {
				t.Errorf("%v, want it to say %q", err, tt.fails)
			}
		})
	}
}

// TestErrorsHideSecrets: what is printed when a file is wrong ends in logs.
func TestErrorsHideSecrets(t *testing.T) {
	join := token()
	for _, content := range []string{"join: [" + join + "]", "join: {a: " + join + "}", join, "remove-secret: " + join, "join: " + join + "x", "gateway-name: " + join} {
		_, err := Parse([]byte(content))
		if err == nil || strings.Contains(err.Error(), join[5:20]) {
			t.Errorf("%.20s…: %v", content, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("join: " + token() + "\n"))
	f.Add([]byte(`{"claim": "` + claim() + `", "gateway-name": ["a"]}`))
	f.Add([]byte("ca: |\n  -----BEGIN\nadmin-addr: ''\n"))
	f.Add([]byte("a: &a [*a]\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		file, err := Parse(data)
		if err != nil {
			if !errors.Is(err, ErrFile) {
				t.Errorf("%v is not ErrFile", err)
			}
			return
		}
		text, err := file.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		if len(text) > MaxSize {
			return // what is quoted is longer than what is not
		}
		again, err := Parse(text)
		if err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		if diff := cmp.Diff(file, again, cmp.Transformer("empty", func(s []string) string { return strings.Join(s, "\x00") })); diff != "" {
			t.Errorf("what was written is read as something else: %s", diff)
		}
	})
}

func TestRemoveSecret(t *testing.T) {
	join := token()
	tests := []struct{ reason, before, after string }{
		{"people's words stay", "# for the shop\njoin: " + join + "\nlog-level: debug # for now\nremove-secret: true\n", "# for the shop\nlog-level: debug # for now\nremove-secret: true\n"},
		{"a quoted one", "log-level: debug\njoin: '" + join + "'\n", "log-level: debug\n"},
		{"JSON is written anew", `{"join": "` + join + `", "log-level": "debug"}`, "log-level: debug\n"},
		{"so is a folded one", "join: >-\n  " + join + "\nlog-level: debug\n", "log-level: debug\n"},
		{"nothing but a token", "join: " + join + "\n", "{}\n"},
	}
	for _, tt := range tests {
		t.Run(tt.reason, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "site.yaml")
			if err := os.WriteFile(path, []byte(tt.before), 0o640); err != nil {
				t.Fatal(err)
			}
			if err := RemoveSecret(path); err != nil {
				t.Fatal(err)
			}
			got, err := os.ReadFile(path)
			if err != nil || string(got) != tt.after {
				t.Errorf("%q, want %q: %v", got, tt.after, err)
			}
			if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o640 {
				t.Errorf("its mode is %v now: %v", info.Mode(), err)
			}
			if again, err := Read(path); err != nil || again.Secret() {
				t.Errorf("read again: %v", err)
			}
		})
	}
}

func TestFind(t *testing.T) {
	const mounts = "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n" +
		"40 22 8:17 / /mnt/my\\040stick rw,relatime shared:1 - vfat /dev/sdb1 rw\n" +
		"41 22 8:33 / /mnt/other rw - vfat /dev/sdc1 rw\nnonsense\n"
	tests := []struct {
		reason string
		files  []string
		label  bool
		want   string
	}{
		{"nothing is there", nil, false, ""},
		{"the machine's own file comes first", []string{"etc/skerry/site.yaml", "media/a/skerry-site.yaml"}, true, "etc/skerry/site.yaml"},
		{"then the medium with the label, wherever it is mounted", []string{"mnt/my stick/skerry-site.yaml", "media/a/skerry-site.yaml"}, true, "mnt/my stick/skerry-site.yaml"},
		{"a mounted medium without the label is not looked at elsewhere", []string{"mnt/other/skerry-site.yaml"}, true, ""},
		{"a label without a file", []string{"media/a/skerry-site.yaml"}, true, "media/a/skerry-site.yaml"},
		{"of several media the first by name", []string{"media/b/skerry-site.yaml", "media/a/skerry-site.yaml"}, false, "media/a/skerry-site.yaml"},
		{"as desktops mount them", []string{"run/media/ana/STICK/skerry-site.yaml", "boot/firmware/skerry-site.yaml"}, false, "run/media/ana/STICK/skerry-site.yaml"},
		{"the boot partition of a board", []string{"boot/firmware/skerry-site.yaml"}, false, "boot/firmware/skerry-site.yaml"},
		{"a directory of that name is none", []string{"boot/firmware/skerry-site.yaml/x"}, false, ""},
	}
	for _, tt := range tests {
		t.Run(tt.reason, func(t *testing.T) {
			root := t.TempDir()
			put := func(name, content string) {
				path := filepath.Join(root, name)
				if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(content), 0o600)); err != nil {
					t.Fatal(err)
				}
			}
			put("proc/self/mountinfo", mounts)
			for _, f := range tt.files {
				put(f, "")
			}
			if tt.label {
				put("dev/sdb1", "")
				put("dev/disk/by-label/.keep", "")
				if err := os.Symlink("../../sdb1", filepath.Join(root, "dev/disk/by-label", Label)); err != nil {
					t.Fatal(err)
				}
			}
			got, err := Find(root)
			if tt.want == "" {
				if !errors.Is(err, ErrNone) {
					t.Errorf("found %q: %v", got, err)
				}
				return
			}
			if err != nil || got != filepath.Join(root, tt.want) {
				t.Errorf("found %q, want %q: %v", got, tt.want, err)
			}
		})
	}
}
