// Command shop is an example of a module that counts its visitors and asks another server: it uses all that a
// site offers. Its bundle declares wasm.keyValue and the server in wasm.outbound.
package main

import (
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"strconv"

	skerry "github.com/skerry-dev/skerry/sdk/go"
)

func main() {
	mux := http.NewServeMux()
	mux.HandleFunc("/visits", visits)
	mux.HandleFunc("PUT /items/{name}", store)
	mux.HandleFunc("DELETE /items/{name}", remove)
	mux.HandleFunc("GET /items/{name}", show)
	mux.HandleFunc("GET /items", list)
	mux.HandleFunc("/ask", ask)
	if err := skerry.Serve(mux); err != nil {
		log.Fatal(err)
	}
}

func visits(w http.ResponseWriter, _ *http.Request) {
	data, err := skerry.Get("visits")
	if err != nil && !errors.Is(err, skerry.ErrNotFound) {
		fail(w, err)
		return
	}
	n, _ := strconv.Atoi(string(data))
	if err := skerry.Put("visits", []byte(strconv.Itoa(n+1))); err != nil {
		fail(w, err)
		return
	}
	fmt.Fprintf(w, "visit %d at %s\n", n+1, os.Getenv("SKERRY_SITE"))
}

func store(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err == nil {
		err = skerry.Put("item/"+r.PathValue("name"), body)
	}
	if err != nil {
		fail(w, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func remove(w http.ResponseWriter, r *http.Request) {
	if err := skerry.Delete("item/" + r.PathValue("name")); err != nil {
		fail(w, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func show(w http.ResponseWriter, r *http.Request) {
	value, err := skerry.Get("item/" + r.PathValue("name"))
	if err != nil {
		fail(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	_, _ = w.Write(value)
}

func list(w http.ResponseWriter, r *http.Request) {
	for key, err := range skerry.Keys("item/" + r.URL.Query().Get("prefix")) {
		if err != nil {
			fail(w, err)
			return
		}
		fmt.Fprintln(w, key)
	}
}

// ask passes another server's answer on.
func ask(w http.ResponseWriter, r *http.Request) {
	res, err := skerry.Client.Get(r.URL.Query().Get("url"))
	if err != nil {
		fail(w, err)
		return
	}
	defer res.Body.Close()
	w.Header().Set("Content-Type", res.Header.Get("Content-Type"))
	w.WriteHeader(res.StatusCode)
	_, _ = io.Copy(w, res.Body)
}

func fail(w http.ResponseWriter, err error) {
	status := http.StatusInternalServerError
	switch {
	case errors.Is(err, skerry.ErrNotFound):
		status = http.StatusNotFound
	case errors.Is(err, skerry.ErrInvalid):
		status = http.StatusBadRequest
	case errors.Is(err, skerry.ErrRefused):
		status = http.StatusForbidden
	case errors.Is(err, skerry.ErrLimit):
		status = http.StatusInsufficientStorage
	}
	http.Error(w, err.Error(), status)
}
