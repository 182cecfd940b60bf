package wire

import (
	"encoding/json"
	"fmt"
)

// MaxChunk bounds the data of one part of a stream, in bytes.
const MaxChunk = 64 << 10

// StreamWindow is how many parts a member sends beyond the last that was acknowledged.
const StreamWindow = 16

// StreamIdleSeconds is after how long without an acknowledgement a member ends a stream, and a hub
// renews one at a third of it.
const StreamIdleSeconds = 30

// Call asks a member to do something now. The answer is a CallReply; when Stream is set and the reply
// accepts, parts follow on StreamSubject.
type Call struct {
	Protocol int `json:"protocol"`
	// Stream is the id under which parts are awaited, one token of letters, digits, '-' and '_'; empty when
	// one reply is enough.
	Stream string `json:"stream,omitempty"`
	// Body is the method's own request.
	Body json.RawMessage `json:"body,omitempty"`
}

// CallReply is the first and often the only answer to a Call.
type CallReply struct {
	// Error is in words for people; empty when the call succeeded.
	Error string          `json:"error,omitempty"`
	Body  json.RawMessage `json:"body,omitempty"`
}

// Chunk is one part of a stream. Sequence starts at one. The receiver acknowledges by sending an Ack on the
// call method "ack".
type Chunk struct {
	Sequence uint64 `json:"sequence"`
	Data     []byte `json:"data,omitempty"`
	// End says that this is the last part; Error is why it ended, when it was not as asked.
	End   bool   `json:"end,omitempty"`
	Error string `json:"error,omitempty"`
}

// Ack says up to which part a stream was received; it also keeps an idle stream alive. Cancel ends it. A
// member answers an Ack that awaits an answer with a CallReply, whose error says that it does not know the
// stream: it has ended, or the member was started anew.
type Ack struct {
	Stream   string `json:"stream"`
	Sequence uint64 `json:"sequence"`
	Cancel   bool   `json:"cancel,omitempty"`
}

// MethodAck is the call method that carries an Ack.
const MethodAck = "ack"

// Encode returns the call as it travels.
func (c Call) Encode() ([]byte, error) {
	c.Protocol = Protocol
	return encode(c, "call")
}

// DecodeCall reads what Encode wrote, and checks it.
func DecodeCall(data []byte) (Call, error) {
	var c Call
	if err := decode(data, &c, "call"); err != nil {
		return Call{}, err
	}
	if err := checkProtocol("call", c.Protocol); err != nil {
		return Call{}, err
	}
	if c.Stream == "" {
		return c, nil
	}
	if err := checkToken("stream", c.Stream); err != nil {
		return Call{}, fmt.Errorf("call: %w", err)
	}
	return c, nil
}

// EncodeJSON encodes a message that has no checks of its own and bounds its size.
func EncodeJSON(what string, v any) ([]byte, error) { return encode(v, what) }

// DecodeJSON decodes a message that has no checks of its own and bounds its size.
func DecodeJSON(what string, data []byte, v any) error { return decode(data, v, what) }

// DecodeAck reads an Ack, and checks it.
func DecodeAck(data []byte) (Ack, error) {
	var a Ack
	if err := decode(data, &a, "ack"); err != nil {
		return Ack{}, err
	}
	if err := checkToken("stream", a.Stream); err != nil {
		return Ack{}, fmt.Errorf("ack: %w", err)
	}
	return a, nil
}
