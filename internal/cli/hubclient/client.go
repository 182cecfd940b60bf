// Package hubclient is how the command line reaches the hub's own endpoint: it finds address and authority
// in the ConfigMap that the hub publishes, and uses the caller's Kubernetes identity.
//
// Only package cli and its children import it. Its errors wrap ErrHub with what the hub answered, or
// ErrNoHub when there is none to ask.
package hubclient

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// Errors of this package.
var (
	// ErrNoHub means that the Kubernetes API that is configured serves no hub, or that the hub is down.
	ErrNoHub = errors.New("no hub")
	// ErrHub means that the hub answered with an error.
	ErrHub = errors.New("the hub answered")
)

// Where the hub publishes itself, and the HTTP trailer of an interrupted answer: the names of package hub,
// which a client does not import.
const (
	systemNamespace = "skerry-system"
	infoConfigMap   = "skerry-hub"
	trailerError    = "Skerry-Error"
)

// PathInstaller is where the hub serves the script by which a machine with nothing on it becomes a site.
const PathInstaller = "/install.sh"

// maxAnswer bounds an answer that is read whole.
const maxAnswer = 64 << 20

// Client asks one hub. It is safe for concurrent use.
type Client struct {
	// URL is the hub's address; Config reaches it with the caller's identity.
	URL    string
	Config *rest.Config
	// RevocationDelay is how long a revoked member may stay at most, as the hub says it; empty: not at all.
	RevocationDelay string
	http            *http.Client
}

// New finds the hub of the Kubernetes API that config reaches.
func New(ctx context.Context, config *rest.Config) (*Client, error) {
	kube, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("client of the Kubernetes API: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	info, err := kube.CoreV1().ConfigMaps(systemNamespace).Get(ctx, infoConfigMap, metav1.GetOptions{})
	if apierrors.IsNotFound(err) || apierrors.IsForbidden(err) {
		return nil, fmt.Errorf("the Kubernetes API at %s has no hub of Skerry (ConfigMap %s/%s): %w", config.Host, systemNamespace, infoConfigMap, ErrNoHub)
	}
	var unreachable *url.Error
	if errors.As(err, &unreachable) {
		return nil, fmt.Errorf("the Kubernetes API at %s does not answer: %w: %w", config.Host, unreachable.Err, ErrNoHub)
	}
	if err != nil {
		return nil, fmt.Errorf("find the hub: %w", err)
	}
	address, err := url.Parse(info.Data["url"])
	if err != nil || address.Scheme != "https" || address.Host == "" || info.Data["ca"] == "" {
		return nil, fmt.Errorf("ConfigMap %s/%s must hold the hub's https:// address as url and its authority as ca, has url %q: start the hub again to have it written anew: %w",
			systemNamespace, infoConfigMap, info.Data["url"], ErrNoHub)
	}
	hub := rest.CopyConfig(config)
	hub.Host, hub.APIPath = strings.TrimSuffix(address.String(), "/"), ""
	// The hub is known by its own authority alone, however carelessly the kubeconfig trusts the API.
	hub.TLSClientConfig.CAData, hub.TLSClientConfig.CAFile = []byte(info.Data["ca"]), ""
	hub.TLSClientConfig.ServerName, hub.TLSClientConfig.Insecure = "", false
	hub.Timeout = 0
	client, err := rest.HTTPClientFor(hub)
	if err != nil {
		return nil, fmt.Errorf("client of the hub: %w", err)
	}
	return &Client{URL: hub.Host, Config: hub, RevocationDelay: info.Data["revocationDelay"], http: client}, nil
}

// Transport returns what sends requests with the caller's identity.
func (c *Client) Transport() http.RoundTripper { return c.http.Transport }

// Get decodes the hub's answer on path into v.
func (c *Client) Get(ctx context.Context, path string, query url.Values, v any) error {
	return c.do(ctx, http.MethodGet, path, query, nil, v)
}

// Raw returns the hub's answer on path as it is.
func (c *Client) Raw(ctx context.Context, path string) ([]byte, error) {
	res, err := c.send(ctx, http.MethodGet, path, nil, nil)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	data, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return nil, fmt.Errorf("read the hub's answer: %w", err)
	}
	return data, nil
}

// Post sends body and decodes the hub's answer into v.
func (c *Client) Post(ctx context.Context, path string, body, v any) error {
	return c.do(ctx, http.MethodPost, path, nil, body, v)
}

func (c *Client) do(ctx context.Context, method, path string, query url.Values, body, v any) error {
	res, err := c.send(ctx, method, path, query, body)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	data, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("read the hub's answer: %w", err)
	}
	if err := json.Unmarshal(data, v); err != nil {
		return fmt.Errorf("the hub's answer on %s cannot be read: are hub and command of the same release? %w", path, err)
	}
	return nil
}

// Stream copies the hub's answer on path to out as it comes. An answer that the hub broke off is an error.
func (c *Client) Stream(ctx context.Context, path string, query url.Values, out io.Writer) error {
	res, err := c.send(ctx, http.MethodGet, path, query, nil)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if _, err := io.Copy(out, res.Body); err != nil {
		return fmt.Errorf("the answer broke off: %w", err)
	}
	if broken := res.Trailer.Get(trailerError); broken != "" {
		return fmt.Errorf("%w: %s", ErrHub, broken)
	}
	return nil
}

func (c *Client) send(ctx context.Context, method, path string, query url.Values, body any) (*http.Response, error) {
	var reader io.Reader
	if body != nil {
		data, err := json.Marshal(body)
		if err != nil {
			return nil, fmt.Errorf("encode request: %w", err)
		}
		reader = bytes.NewReader(data)
	}
	target := c.URL + path
	if len(query) > 0 {
		target += "?" + query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, method, target, reader)
	if err != nil {
		return nil, fmt.Errorf("make request: %w", err)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := c.http.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, fmt.Errorf("the hub at %s does not answer: %w: %w", c.URL, err, ErrNoHub)
	}
	if res.StatusCode/100 == 2 {
		return res, nil
	}
	defer res.Body.Close()
	data, _ := io.ReadAll(io.LimitReader(res.Body, 64<<10))
	var answer struct {
		Message string `json:"message"`
	}
	if json.Unmarshal(data, &answer) != nil || answer.Message == "" {
		answer.Message = strings.TrimSpace(res.Status + " " + string(data))
	}
	return nil, fmt.Errorf("%w: %s", ErrHub, answer.Message)
}
