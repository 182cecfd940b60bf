package natsserver

import (
	"net"
	"net/http"
	"time"

	"github.com/coder/websocket"
)

// WebSocketHandler serves the bus to members on the hub's own port. It speaks NATS' protocol in binary
// messages, as NATS' own client does, without compression: messages are small, and compressing secrets
// beside what another may choose tells their content by its length. Who may do what is decided by the
// credential that the client shows, not by the HTTP request.
func (g *Gate) WebSocketHandler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !g.enter() {
			w.Header().Set("Retry-After", "10")
			http.Error(w, "the bus has as many connections as it takes; try again later", http.StatusServiceUnavailable)
			return
		}
		defer g.leave()
		ws, err := websocket.Accept(w, r, &websocket.AcceptOptions{CompressionMode: websocket.CompressionDisabled})
		if err != nil {
			g.log.Log(r.Context(), levelDetail, "refused a WebSocket", "remote", r.RemoteAddr, "error", err)
			return // Accept answered
		}
		defer ws.CloseNow()
		err = g.relay(webSocketConn{websocket.NetConn(g.ctx, ws, websocket.MessageBinary), ws}, r.RemoteAddr)
		g.log.Log(g.ctx, levelDetail, "connection to the bus ended", "remote", r.RemoteAddr, "error", err)
	})
}

// webSocketConn closes with a close frame but waits for the peer's only briefly.
type webSocketConn struct {
	net.Conn
	ws *websocket.Conn
}

// closeTimeout is how long a peer may take to answer a close frame.
const closeTimeout = time.Second

func (c webSocketConn) Close() error {
	abort := time.AfterFunc(closeTimeout, func() { c.ws.CloseNow() })
	defer abort.Stop()
	return c.ws.Close(websocket.StatusNormalClosure, "")
}
