// Command wait is a guest of the benchmark: a stock Go module whose answer is longer than the runtime holds back.
package main

import (
	"log"
	"net/http"
	"net/http/cgi"
)

func main() {
	handler := func(w http.ResponseWriter, _ *http.Request) {
		for range 64 {
			if _, err := w.Write(make([]byte, 1024)); err != nil {
				return
			}
		}
	}
	if err := cgi.Serve(http.HandlerFunc(handler)); err != nil {
		log.Fatal(err)
	}
}
