package tasksite

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/skerry-dev/skerry/internal/app/task"
)

// metrics are what the module counts.
type metrics struct {
	runs *prometheus.CounterVec
	lost prometheus.Counter
}

func newMetrics() *metrics {
	return &metrics{
		runs: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "skerry_task_runs_total", Help: "Runs of tasks and schedules that are over, by how they ended.",
		}, []string{"result"}),
		lost: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "skerry_task_output_bytes_lost_total", Help: "Bytes of the output of tasks that the disk did not take.",
		}),
	}
}

func (m *metrics) register(r prometheus.Registerer) error {
	for _, phase := range []task.Phase{task.PhaseSucceeded, task.PhaseFailed, task.PhaseMissed, task.PhaseCancelled} {
		m.runs.WithLabelValues(string(phase))
	}
	return errors.Join(r.Register(m.runs), r.Register(m.lost))
}
