package ociregistry

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/skerry-dev/skerry/internal/fleet"
)

const uploads1 = "/v2/default/hello/blobs/uploads/"

func (s *server) start() string {
	s.t.Helper()
	h, _ := s.want(http.StatusAccepted, "", "POST", uploads1, nil)
	if h.Get("Range") != "0-0" || !strings.HasPrefix(h.Get("Location"), uploads1) {
		s.t.Fatalf("POST gave %v", h)
	}
	return h.Get("Location")
}

func (s *server) tmpFiles() int {
	s.t.Helper()
	entries, err := os.ReadDir(filepath.Join(s.dir, tmpDir))
	if err != nil {
		s.t.Fatal(err)
	}
	return len(entries)
}

func TestChunkedUpload(t *testing.T) {
	s := serve(t, Options{})
	content := "0123456789"
	d := fleet.DigestOf([]byte(content))
	at := s.start()
	h, _ := s.want(http.StatusAccepted, "", "PATCH", at, strings.NewReader(content[:4]), "Content-Range", "0-3")
	if h.Get("Range") != "0-3" {
		t.Errorf("after the first chunk: Range %q", h.Get("Range"))
	}
	h, _ = s.want(http.StatusRequestedRangeNotSatisfiable, codeUploadInvalid, "PATCH", at, strings.NewReader(content[6:]), "Content-Range", "6-9")
	if h.Get("Range") != "0-3" {
		t.Errorf("a gap is answered with Range %q, want how far the upload is", h.Get("Range"))
	}
	s.want(http.StatusRequestedRangeNotSatisfiable, codeUploadInvalid, "PATCH", at, strings.NewReader("x"), "Content-Range", "four")
	s.want(http.StatusAccepted, "", "PATCH", at, strings.NewReader(content[4:8])) // streamed, without a range
	h, _ = s.want(http.StatusNoContent, "", "GET", at, nil)
	if h.Get("Range") != "0-7" {
		t.Errorf("status gave Range %q", h.Get("Range"))
	}
	s.want(http.StatusBadRequest, codeDigestInvalid, "PUT", at+"?digest=md5:1", nil)
	h, _ = s.want(http.StatusCreated, "", "PUT", at+"?digest="+string(d), strings.NewReader(content[8:]))
	if h.Get("Docker-Content-Digest") != string(d) {
		t.Errorf("PUT gave %v", h)
	}
	if _, body := s.want(http.StatusOK, "", "GET", h.Get("Location"), nil); body != content {
		t.Errorf("blob is %q", body)
	}
	s.want(http.StatusNotFound, codeUploadUnknown, "GET", at, nil)
	if n := s.tmpFiles(); n != 0 {
		t.Errorf("%d files are left in tmp", n)
	}
}

func TestUploadsThatAreRefusedLeaveNothing(t *testing.T) {
	s := serve(t, Options{MaxBlobBytes: 10, MaxUploads: 2})
	wrong := string(fleet.DigestOf([]byte("other")))
	s.want(http.StatusBadRequest, codeDigestInvalid, "POST", uploads1+"?digest="+wrong, strings.NewReader("content"))
	s.want(http.StatusBadRequest, codeDigestInvalid, "PUT", s.start()+"?digest="+wrong, strings.NewReader("content"))
	s.want(http.StatusRequestEntityTooLarge, codeSizeInvalid, "POST", uploads1+"?digest="+wrong, strings.NewReader("more than ten bytes"))

	at := s.start()
	s.want(http.StatusAccepted, "", "PATCH", at, strings.NewReader("six by"))
	s.want(http.StatusRequestEntityTooLarge, codeSizeInvalid, "PATCH", at, io.MultiReader(strings.NewReader("tes and more"))) // of unknown length
	s.want(http.StatusNotFound, codeUploadUnknown, "PATCH", strings.Replace(at, "hello", "other", 1), nil)

	last := s.start()
	s.want(http.StatusTooManyRequests, codeTooManyRequests, "POST", uploads1, nil)
	for _, l := range []string{at, last} {
		s.want(http.StatusNoContent, "", "DELETE", l, nil)
		s.want(http.StatusNotFound, codeUploadUnknown, "DELETE", l, nil)
	}
	if n := s.tmpFiles(); n != 0 {
		t.Errorf("%d files are left in tmp", n)
	}
	if blobs, err := os.ReadDir(filepath.Join(s.dir, blobDir)); err != nil || len(blobs) != 0 {
		t.Errorf("blobs are %v, %v; want none", blobs, err)
	}
}

func TestUploadsExpire(t *testing.T) {
	s := serve(t, Options{UploadTTL: time.Minute})
	old := s.start()
	s.clock.add(30 * time.Second)
	s.want(http.StatusNoContent, "", "GET", old, nil) // a use begins the time anew
	s.clock.add(45 * time.Second)
	s.want(http.StatusNoContent, "", "GET", old, nil)
	s.clock.add(2 * time.Minute)
	fresh := s.start()
	if n := s.tmpFiles(); n != 1 {
		t.Errorf("%d files in tmp, want that of the new upload alone", n)
	}
	s.want(http.StatusNotFound, codeUploadUnknown, "PATCH", old, strings.NewReader("x"))
	s.clock.add(2 * time.Minute)
	s.want(http.StatusNotFound, codeUploadUnknown, "PATCH", fresh, strings.NewReader("x"))
	if n := s.tmpFiles(); n != 0 {
		t.Errorf("%d files in tmp after the last upload expired", n)
	}
}

// A connection that breaks in the middle leaves what arrived, and the client goes on from there.
func TestUploadGoesOnAfterABreak(t *testing.T) {
	s := serve(t, Options{})
	content := bytes.Repeat([]byte("0123456789"), 20_000)
	at := s.start()
	conn, err := net.Dial("tcp", s.host)
	if err != nil {
		t.Fatal(err)
	}
	head := "PATCH " + at + " HTTP/1.1\r\nHost: x\r\nContent-Length: 200000\r\n\r\n"
	if _, err := conn.Write(append([]byte(head), content[:100_000]...)); err != nil {
		t.Fatal(err)
	}
	if err := conn.Close(); err != nil {
		t.Fatal(err)
	}
	var arrived string
	for { // the broken request lets go of the upload once the server has seen the end of the connection
		status, h, body := s.do("GET", at, nil)
		if arrived = h.Get("Range"); status == http.StatusNoContent && arrived != "0-0" {
			break
		} else if status != http.StatusNoContent && status != http.StatusConflict {
			t.Fatalf("status %d: %s", status, body)
		}
	}
	if arrived != "0-99999" {
		t.Fatalf("what arrived is %q, want 0-99999", arrived)
	}
	s.want(http.StatusCreated, "", "PUT", at+"?digest="+string(fleet.DigestOf(content)), bytes.NewReader(content[100_000:]))
}

func TestOneRequestAtATimeWritesToAnUpload(t *testing.T) {
	s := serve(t, Options{})
	at := s.start()
	r, w := io.Pipe()
	done := make(chan error, 1)
	go func() {
		req, err := http.NewRequest("PATCH", s.url+at, r)
		if err == nil {
			var resp *http.Response
			if resp, err = http.DefaultClient.Do(req); err == nil {
				err = resp.Body.Close()
			}
		}
		done <- err
	}()
	if _, err := w.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	for { // until the first request holds the upload
		status, _, _ := s.do("GET", at, nil)
		if status == http.StatusConflict {
			break
		}
	}
	s.want(http.StatusConflict, codeUploadInvalid, "PATCH", at, strings.NewReader("y"))
	if err := errors.Join(w.Close(), <-done); err != nil {
		t.Fatal(err)
	}
	s.want(http.StatusCreated, "", "PUT", at+"?digest="+string(fleet.DigestOf([]byte("x"))), nil)
}

func TestMount(t *testing.T) {
	var forbidden string
	s := serve(t, Options{Authorizer: authFunc(func(_ *http.Request, repo string, a Action, _ Target) error {
		if repo != "" && repo == forbidden && a == ActionPull {
			return ErrDenied
		}
		return nil
	})})
	d := s.pushBlob("default/hello", []byte("shared"))
	mount := "/v2/team/hello/blobs/uploads/?mount=" + string(d) + "&from="
	tests := []struct {
		reason, from, forbidden string
		status                  int
	}{
		{"what the caller may not read is not mounted, and no error tells that it exists", "default/hello", "default/hello", 202},
		{"a repository without the blob gives nothing", "default/other", "", 202},
		{"a name that leaves the directory gives nothing", "../default", "", 202},
		{"else it is mounted", "default/hello", "", 201},
	}
	for _, tt := range tests {
		t.Run(tt.reason, func(t *testing.T) {
			s.t, forbidden = t, tt.forbidden
			s.want(tt.status, "", "POST", mount+tt.from, nil)
			want := http.StatusNotFound
			if tt.status == 201 {
				want = http.StatusOK
			}
			s.want(want, "", "GET", "/v2/team/hello/blobs/"+string(d), nil)
		})
	}
	s.t, forbidden = t, ""
	s.want(http.StatusBadRequest, codeDigestInvalid, "POST", "/v2/team/hello/blobs/uploads/?mount=x&from=default/hello", nil)

	// The real client mounts a layer that it pulled from the same registry. One layer alone: the client
	// races with itself when it mounts several.
	layer, err := random.Layer(1000, types.OCILayer)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.WriteLayer(s.ref("default/app").Context(), layer); err != nil {
		t.Fatal(err)
	}
	h, err := layer.Digest()
	if err != nil {
		t.Fatal(err)
	}
	source := s.ref("default/app@" + h.String())
	if err := remote.WriteLayer(s.ref("team/app").Context(), &remote.MountableLayer{Layer: layer, Reference: source}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.ReadBlob("team/app", fleet.Digest(h.String()), 2000); err != nil {
		t.Errorf("the mounted layer: %v", err)
	}
}
