// Command apitable makes catalog/kubernetes/apis.json: which API Kubernetes served in which minor version, whether
// it was on by default, when it is to go and what takes its place. Nothing in the table is written by hand.
//
//	go run ./apitable -out ../catalog/kubernetes/apis.json
//
// It downloads k8s.io/kubernetes of each minor (about 20 MB each) and k8s.io/api, one after the other, with the go
// command, which verifies them by the checksum database, and keeps none of them. From each minor it reads
//
//   - api/discovery/*.json, what an API server answers that has everything switched on, or, in minors that have
//     none, the paths of api/openapi-spec/swagger.json, which is made by such a server too;
//   - DefaultAPIResourceConfigSource in pkg/controlplane (before 1.20 pkg/master), what is on by default;
//
// and from k8s.io/api the lifecycle markers: methods APILifecycleDeprecated, APILifecycleRemoved and
// APILifecycleReplacement of the types. Any form of these that it does not know ends it with an error.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
)

func main() {
	first := flag.Int("first", 14, "first minor version")
	last := flag.Int("last", 37, "last minor version")
	api := flag.String("api", "v0.37.2", "version of k8s.io/api whose lifecycle markers are read")
	out := flag.String("out", "", "file to write")
	flag.Parse()
	if *out == "" || *first > *last || flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *first, *last, *api, *out); err != nil {
		fmt.Fprintln(os.Stderr, "Error:", err)
		stop()
		os.Exit(1)
	}
}

func run(ctx context.Context, first, last int, api, out string) error {
	var minors []minor
	for n := first; n <= last; n++ {
		var m minor
		version := fmt.Sprintf("v1.%d.0", n)
		err := withModule(ctx, "k8s.io/kubernetes", version, func(mod module) error {
			var err error
			m, err = readMinor(n, mod)
			return err
		})
		if err != nil {
			return fmt.Errorf("read k8s.io/kubernetes@%s: %w", version, err)
		}
		fmt.Fprintf(os.Stderr, "1.%d: %d resources by %s\n", n, len(m.resources), m.From)
		minors = append(minors, m)
	}
	var marks markers
	err := withModule(ctx, "k8s.io/api", api, func(mod module) error {
		var err error
		marks, err = readMarkers(mod)
		return err
	})
	if err != nil {
		return fmt.Errorf("read k8s.io/api@%s: %w", api, err)
	}
	data, err := encode(newTable(minors, marks))
	if err != nil {
		return err
	}
	return os.WriteFile(out, data, 0o644)
}
