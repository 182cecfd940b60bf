//go:build !wasip1

package skerry

// codeNotAtSite is what every call answers here.
const codeNotAtSite = 1 << 31

var host site = elsewhere{}

type elsewhere struct{}

func (elsewhere) ready() ([]string, uint32)                    { return nil, codeNotAtSite }
func (elsewhere) said() string                                 { return "" }
func (elsewhere) get(string, []byte) (n, code uint32)          { return 0, codeNotAtSite }
func (elsewhere) put(string, []byte) uint32                    { return codeNotAtSite }
func (elsewhere) del(string) uint32                            { return codeNotAtSite }
func (elsewhere) list(string, string, []byte) (n, code uint32) { return 0, codeNotAtSite }
func (elsewhere) open([]byte) (answer, code uint32)            { return 0, codeNotAtSite }
func (elsewhere) read(uint32, []byte) (n, code uint32)         { return 0, codeNotAtSite }
func (elsewhere) close(uint32) uint32                          { return codeNotAtSite }
