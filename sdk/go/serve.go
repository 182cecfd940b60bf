package skerry

import (
	"fmt"
	"net/http"
	"net/http/cgi"
	"os"
	"strings"
)

// Serve answers the request that this instance was started for, with h or, when that is nil, with
// http.DefaultServeMux. It returns when the answer is written.
//
// It first tells the site that the module is ready. What ran before, the initialisation of packages and the
// beginning of main, is done ahead of the request: prepare there what every request needs, and do there
// nothing that a request must cause, as some instances never get one.
func Serve(h http.Handler) error {
	if err := Ready(); err != nil {
		return err
	}
	return cgi.Serve(h)
}

// Ready tells the site that the module is ready, and returns when there is a request or a task for it. The
// environment is that of the request after it.
func Ready() error {
	environ, code := host.ready()
	if code == codeNotAtSite {
		return ErrNotAtSite
	}
	if code != codeOK {
		return failure("ready", code)
	}
	for _, kv := range environ {
		name, value, _ := strings.Cut(kv, "=")
		if err := os.Setenv(name, value); err != nil {
			return fmt.Errorf("skerry: variable %q: %w", name, err)
		}
	}
	return nil
}

// Task returns the name of the task or schedule that this instance was started for, empty when it was started
// for a request. It is known after Ready.
func Task() string { return os.Getenv("SKERRY_TASK") }
