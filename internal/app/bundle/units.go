package bundle

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Bytes is an amount of memory: a whole number with an optional unit, as Kubernetes writes them.
type Bytes int64

// UnmarshalJSON reads 1000, "64Mi" or "2G".
func (b *Bytes) UnmarshalJSON(data []byte) error {
	text := scalar(data)
	number, factor := text, int64(1)
	for i, unit := range []string{"Ki", "Mi", "Gi", "Ti", "k", "M", "G", "T"} {
		rest, ok := strings.CutSuffix(text, unit)
		if !ok {
			continue
		}
		base := int64(1024)
		if i >= 4 {
			base = 1000
		}
		number = rest
		for range i%4 + 1 {
			factor *= base
		}
		break
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n < 0 || n > math.MaxInt64/factor {
		return fmt.Errorf("%q is no amount of memory: want a whole number and Ki, Mi, Gi, k, M or G, such as 64Mi", text)
	}
	*b = Bytes(n * factor)
	return nil
}

// Millis is an amount of CPU in thousandths.
type Millis int

// UnmarshalJSON reads "500m", 2 or 0.5.
func (m *Millis) UnmarshalJSON(data []byte) error {
	text := scalar(data)
	number, factor := text, 1000.0
	if rest, ok := strings.CutSuffix(text, "m"); ok {
		number, factor = rest, 1
	}
	n, err := strconv.ParseFloat(number, 64)
	v := n * factor
	if err != nil || !(v >= 0) || v > math.MaxInt32 || math.Abs(v-math.Round(v)) > 1e-6 {
		return fmt.Errorf("%q is no amount of CPU: want thousandths such as 500m, or CPUs such as 2 or 0.5", text)
	}
	*m = Millis(math.Round(v))
	return nil
}

// Seconds is a time in whole seconds.
type Seconds int

// UnmarshalJSON reads "10s" or "2m".
func (s *Seconds) UnmarshalJSON(data []byte) error {
	text := scalar(data)
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 || d%time.Second != 0 || d > 24*time.Hour {
		return fmt.Errorf("%q is no time in whole seconds: want one such as 10s or 2m, at most 24h", text)
	}
	*s = Seconds(d / time.Second)
	return nil
}

// scalar returns the text of a JSON string or number.
func scalar(data []byte) string {
	var text string
	if json.Unmarshal(data, &text) == nil {
		return text
	}
	return string(data)
}
