package sitebatch

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const machine = "0123456789abcdef0123456789abcdef"

func TestRead(t *testing.T) {
	got, err := Read(strings.NewReader("\xef\xbb\xbfname, zone ,label:kind,labels,fingerprint\r\n" +
		"shop-1,\"north, by the sea\",shop,region=north; size=s,\r\n\r\n" +
		" shop-2 ,,,,  " + machine + "\r\n"))
	if err != nil {
		t.Fatal(err)
	}
	want := []Site{
		{Line: 2, Name: "shop-1", Zone: "north, by the sea", Labels: map[string]string{"kind": "shop", "region": "north", "size": "s"}},
		{Line: 4, Name: "shop-2", Labels: map[string]string{}, Fingerprint: machine},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestReadRefuses(t *testing.T) {
	long := strings.Repeat("x", 70)
	tests := []struct {
		table string
		want  []string
		why   string
	}{
		{"", []string{"it is empty"}, "nothing to read"},
		{"name\n", []string{"names no site"}, "nothing to make"},
		{"zone\nnorth\n", []string{"line 1, column name: it is missing"}, "a site needs a name"},
		{"name,place\na,b\n", []string{`line 1, column "place"`}, "a column with a slip of the pen must not be left out silently"},
		{"name;zone\na;b\n", []string{"divided by commas"}, "some spreadsheets write semicolons"},
		{"name,name\na,b\n", []string{"line 1, column name: it is there twice"}, "which is meant?"},
		{"name,label:-x\na,b\n", []string{"line 1, column label:-x: no key of a label"}, "Kubernetes would refuse it later"},
		{"name,zone\na\n", []string{"line 2, column -: 1 fields, want 2"}, "a comma is missing"},
		{"name\nShop 1\n", []string{"line 2, column name", `"Shop 1"`}, "a name is a part of bus subjects"},
		{"name\n\"\"\n", []string{"line 2, column name"}, "no name"},
		{"name\na\nb\na\n", []string{`line 4, column name: site "a" is in line 2 already`}, "one token would be lost"},
		{"name,label:kind\na," + long + "\n", []string{"line 2, column label:kind", "no value"}, "too long for a label"},
		{"name,labels\na,kind\n", []string{`line 2, column labels: "kind": want KEY=VALUE`}, "no value"},
		{"name,labels,label:kind\na,kind=x,y\n", []string{`label "kind" is set twice`}, "which is meant?"},
		{"name,fingerprint\na,xyz\n", []string{"line 2, column fingerprint", "skerry-site fingerprint"}, "no machine has it"},
		{"name,fingerprint\na," + machine + "\nb," + machine + "\n", []string{"line 3, column fingerprint: the machine is in line 2 already"}, "one machine is at one site"},
		{"name,zone\na," + strings.Repeat("z", 254) + "\n", []string{"line 2, column zone"}, "longer than the API takes"},
		{"name\na\xff\n", []string{"not UTF-8"}, "the API takes only UTF-8"},
		{"name\n\"a\n", []string{"line 2"}, "an open quote"},
		{"name,zone\nA,x\nB,x\n", []string{"line 2, column name", "line 3, column name"}, "all faults at once"},
		{"name" + strings.Repeat(",zone", 70) + "\n", []string{"71 columns"}, "bounded"},
		{"name\n" + strings.Repeat("a", MaxBytes), []string{"larger than 1 MiB"}, "bounded"},
		{"name\n" + numbered(MaxSites+1), []string{"more than 10000 sites"}, "bounded"},
		{"name\n" + strings.Repeat("A\n", 100), []string{"and more"}, "a screen of faults is enough"},
	}
	for _, tt := range tests {
		sites, err := Read(strings.NewReader(tt.table))
		if !errors.Is(err, ErrTable) {
			t.Errorf("%.40q gives %d sites, %v: %s", tt.table, len(sites), err, tt.why)
			continue
		}
		for _, want := range tt.want {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%.40q: %v, want %q in it: %s", tt.table, err, want, tt.why)
			}
		}
		if n := strings.Count(err.Error(), "\n"); n > maxFaults+1 {
			t.Errorf("%.40q: %d lines of faults", tt.table, n)
		}
	}
}

func numbered(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "shop-%d\n", i)
	}
	return b.String()
}

func TestReadTakesAFullTable(t *testing.T) {
	sites, err := Read(strings.NewReader("name\n" + numbered(MaxSites)))
	if err != nil || len(sites) != MaxSites {
		t.Errorf("%d sites, %v", len(sites), err)
	}
}

func TestMissing(t *testing.T) {
	got := Missing(map[string]string{"a": "1", "b": "2"}, map[string]string{"a": "1", "b": "3", "c": ""})
	if diff := cmp.Diff(map[string]string{"b": "3", "c": ""}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func FuzzRead(f *testing.F) {
	f.Add("name,zone,label:kind,labels,fingerprint\na,b,c,d=e;f=g," + machine + "\n")
	f.Add("name\n\"a\nb\"\n")
	f.Fuzz(func(t *testing.T, table string) {
		sites, err := Read(strings.NewReader(table))
		if err != nil {
			return
		}
		seen := map[string]bool{}
		for _, s := range sites {
			if s.Name.Validate() != nil || seen[string(s.Name)] || s.Labels == nil {
				t.Fatalf("%q gives %+v", table, s)
			}
			seen[string(s.Name)] = true
		}
	})
}
