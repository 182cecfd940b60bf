package fleet

import (
	"fmt"
	"log/slog"
)

const redacted = "[redacted]"

// SecretValue is one value that must not be shown. Whatever prints, logs or encodes it says only that there
// is something; who needs the bytes converts it to []byte or string in plain sight.
type SecretValue []byte

// String hides the value.
func (SecretValue) String() string { return redacted }

// GoString hides the value from %#v.
func (SecretValue) GoString() string { return redacted }

// Format hides the value from every other verb.
func (SecretValue) Format(f fmt.State, _ rune) { fmt.Fprint(f, redacted) }

// LogValue hides the value from logs.
func (SecretValue) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText hides the value from text encodings.
func (SecretValue) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// MarshalJSON hides the value from JSON.
func (SecretValue) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }
