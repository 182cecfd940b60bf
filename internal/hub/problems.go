package hub

import (
	"maps"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/skerry-dev/skerry/api/v1alpha1"
	"github.com/skerry-dev/skerry/internal/wire"
)

// maxProblems bounds the text of a site's problems in its status, in bytes.
const maxProblems = 1024

// showProblems says in the site's status what its agent reports to be wrong with itself or its machine, such
// as a disk that is full. The condition goes when the agent says that all is well.
func showProblems(site *v1alpha1.Site, report wire.Report) {
	if len(report.Problems) == 0 {
		meta.RemoveStatusCondition(&site.Status.Conditions, v1alpha1.ConditionDegraded)
		return
	}
	var said []string
	for _, part := range slices.Sorted(maps.Keys(report.Problems)) {
		said = append(said, part+": "+report.Problems[part])
	}
	text := strings.ToValidUTF8(strings.Join(said, "; "), "?")
	if len(text) > maxProblems {
		text = strings.ToValidUTF8(text[:maxProblems], "") + "…"
	}
	meta.SetStatusCondition(&site.Status.Conditions, metav1.Condition{
		Type: v1alpha1.ConditionDegraded, Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonAgentProblems,
		Message: text, ObservedGeneration: site.Generation,
	})
}
