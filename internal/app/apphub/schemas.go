package apphub

import (
	"sync"

	"github.com/skerry-dev/skerry/internal/app/appschema"
	"github.com/skerry-dev/skerry/internal/fleet"
)

// maxKeptSchemas bounds the compiled schemas that are kept in memory.
const maxKeptSchemas = 64

// schemas compiles the schemas of bundles, each once. It is safe for concurrent use.
type schemas struct {
	mu   sync.Mutex
	kept map[fleet.Digest]compiled
}

type compiled struct {
	schema *appschema.Schema
	err    error
}

func (s *schemas) compile(data []byte) (*appschema.Schema, error) {
	digest := fleet.DigestOf(data)
	s.mu.Lock()
	have, ok := s.kept[digest]
	s.mu.Unlock()
	if ok {
		return have.schema, have.err
	}
	have.schema, have.err = appschema.Compile(data)
	s.mu.Lock()
	defer s.mu.Unlock()
	for other := range s.kept {
		if len(s.kept) < maxKeptSchemas {
			break
		}
		delete(s.kept, other)
	}
	s.kept[digest] = have
	return have.schema, have.err
}
