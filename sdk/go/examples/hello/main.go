// Command hello is the smallest module with the SDK: it says when it is ready, and is prepared until there.
package main

import (
	"fmt"
	"log"
	"net/http"
	"os"

	skerry "github.com/skerry-dev/skerry/sdk/go"
)

func main() {
	handler := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, "Hello from %s\n", os.Getenv("SKERRY_SITE"))
	})
	if err := skerry.Serve(handler); err != nil {
		log.Fatal(err)
	}
}
