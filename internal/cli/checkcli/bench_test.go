package checkcli

import (
	"fmt"
	"strings"
	"testing"
)

// BenchmarkCheck checks 1,000 objects; time and memory grow with their number alone.
func BenchmarkCheck(b *testing.B) {
	var text strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&text, "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web-%d, labels: {app: web}}\nspec:\n  selector: {matchLabels: {app: web}}\n  template:\n    metadata: {labels: {app: web}}\n"+
			"    spec:\n      containers:\n      - name: web\n        image: web:1\n        ports: [{containerPort: 80}]\n        resources: {limits: {memory: 64Mi}, requests: {cpu: 10m}}\n---\n", i)
	}
	for b.Loop() {
		if out, err := checked(b, text.String(), "-"); err != nil || !strings.HasPrefix(out, "1000 objects") {
			b.Fatal(err, out)
		}
	}
}
