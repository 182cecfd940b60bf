package hubtest

import (
	"encoding/json"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/skerry-dev/skerry/api/v1alpha1"
	"github.com/skerry-dev/skerry/internal/fleet"
	"github.com/skerry-dev/skerry/internal/wire"
)

// Member is the id of the one member of each Site of this package.
const Member = fleet.MemberID("m1")

// Bus is what a Site speaks over, as its agent would.
type Bus interface {
	wire.Bus
	wire.Store
}

// Site is a site that the test speaks for, over the bus alone.
type Site struct {
	Name     fleet.SiteName
	t        testing.TB
	bus      Bus
	sequence uint64
}

// NewSite makes the Site object with its member, as enrolment would, and says that it is there.
func NewSite(t testing.TB, c client.Client, bus Bus, object *v1alpha1.Site) *Site {
	t.Helper()
	if err := c.Create(t.Context(), object); err != nil {
		t.Fatal(err)
	}
	// The site controller writes the same status, so this may conflict.
	Eventually(t, "member of site "+object.Name, func() string {
		if err := c.Get(t.Context(), client.ObjectKeyFromObject(object), object); err != nil {
			return err.Error()
		}
		object.Status.Members = []v1alpha1.SiteMember{{ID: string(Member), PublicKey: make([]byte, 32)}}
		if err := c.Status().Update(t.Context(), object); err != nil {
			return err.Error()
		}
		return ""
	})
	s := &Site{Name: fleet.SiteName(object.Name), t: t, bus: bus}
	s.Alive(false)
	return s
}

// Labelled is a Site object to give to NewSite.
func Labelled(name string, labels map[string]string) *v1alpha1.Site {
	return &v1alpha1.Site{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}}
}

// Alive sends a sign of life, or says that the site leaves.
func (s *Site) Alive(leaving bool) {
	s.t.Helper()
	data, err := wire.EncodeJSON("alive", wire.Alive{Sequence: s.sequence, Leaving: leaving})
	if err == nil {
		err = s.bus.Publish(s.t.Context(), wire.AliveSubject(s.Name, Member), data)
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

// Section returns the body of what the site is told in a section; nil when nothing.
func (s *Site) Section(name string) []byte {
	s.t.Helper()
	msg, err := s.bus.Get(s.t.Context(), wire.DesiredSubject(s.Name, name))
	if err != nil {
		return nil
	}
	return msg.Data
}

// Report sends the site's state document; the site's name, member, epoch and the next sequence are filled in.
func (s *Site) Report(r wire.Report) {
	s.t.Helper()
	s.sequence++
	r.Site, r.Member, r.Epoch, r.Sequence = s.Name, Member, "e1", s.sequence
	data, err := r.Encode()
	if err == nil {
		_, err = s.bus.Put(s.t.Context(), wire.ReportSubject(s.Name, Member), data, wire.AnyRevision)
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

// ReportModule sends a state document with one module's part.
func (s *Site) ReportModule(name string, part any) {
	s.t.Helper()
	body, err := json.Marshal(part)
	if err != nil {
		s.t.Fatal(err)
	}
	s.Report(wire.Report{Modules: map[string]json.RawMessage{name: body}})
}
