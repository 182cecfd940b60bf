package taskcli

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/util/duration"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/skerry-dev/skerry/api/v1alpha1"
	"github.com/skerry-dev/skerry/internal/app/task"
)

func newResults(d Deps) *cobra.Command {
	var form string
	var logs bool
	var run int
	c := &cobra.Command{
		Use:   "results NAME",
		Short: "Show what became of a task at each of its sites",
		Long: "Show what became of a task at each of its sites, or of the runs of a schedule (crontask/NAME): how it ended, when,\n" +
			"after how many tries, and the end of what it printed. With --logs, all that the sites kept of it.",
		Example: "  skerry task results clean-1\n  skerry task results crontask/backup --run 1 --logs",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if form != "table" && form != "json" {
				return d.Usage(fmt.Errorf("-o %q: want table or json", form))
			}
			ref, err := d.ref(args[0])
			if err != nil {
				return err
			}
			hub, err := d.Hub(cmd.Context())
			if err != nil {
				return err
			}
			r, err := results(cmd.Context(), hub, ref)
			if err != nil {
				return err
			}
			switch {
			case logs:
				return showOutput(cmd.Context(), d, hub, r, run)
			case form == "json":
				enc := json.NewEncoder(d.Streams.Out)
				enc.SetIndent("", "  ")
				return enc.Encode(r)
			}
			return printResults(d.Streams.Out, r, time.Now())
		},
	}
	c.Flags().StringVarP(&form, "output", "o", "table", "table or json")
	c.Flags().BoolVar(&logs, "logs", false, "print all that each site kept of its output, site by site")
	c.Flags().IntVar(&run, "run", 0, "of a schedule: which run's output, the newest being 0")
	return c
}

// printResults prints a line for each run of each site.
func printResults(out io.Writer, r task.Results, now time.Time) error {
	state := "under way"
	if r.Finished {
		state = "finished"
	}
	if r.Kind == task.KindCronTask {
		state = "schedule"
	}
	fmt.Fprintf(out, "%s/%s  %s: %s\n\n", strings.ToLower(string(r.Kind)), r.Name, state, plain(cmp.Or(r.Message, "the hub has said nothing of it yet")))
	w := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	header := "SITE\tSTATE\tEXIT\tTRIES\tTOOK\tFINISHED\tOUTPUT"
	if r.Kind == task.KindCronTask {
		header = "SITE\tTIME\tSTATE\tEXIT\tTRIES\tTOOK\tFINISHED\tOUTPUT"
	}
	fmt.Fprintln(w, header)
	for _, s := range r.Sites {
		runs := s.Runs
		if len(runs) == 0 {
			runs = []task.Run{{Time: s.Next, Phase: task.PhasePending, ExitCode: -1, Message: s.Message}}
		}
		for i, run := range runs {
			state := string(run.Phase)
			if r.Kind == task.KindTask {
				state = string(s.Standing)
			}
			cells := []string{string(s.Site)}
			if r.Kind == task.KindCronTask {
				cells = append(cells, at(run.Time))
				if i > 0 {
					cells[0] = ""
				}
			}
			message := run.Message
			if i == 0 {
				message = cmp.Or(message, s.Message)
			}
			cells = append(cells, state, exit(run), tries(run), took(run, now), at(run.Finished), note(run, message))
			fmt.Fprintln(w, strings.Join(cells, "\t"))
		}
	}
	return w.Flush()
}

func exit(r task.Run) string {
	if !r.Phase.Final() || r.ExitCode < 0 {
		return "-"
	}
	return strconv.Itoa(r.ExitCode)
}

func tries(r task.Run) string {
	if r.Attempt == 0 {
		return "-"
	}
	return strconv.Itoa(r.Attempt)
}

func took(r task.Run, now time.Time) string {
	end := r.Finished
	if end == 0 {
		end = now.Unix()
	}
	if r.Started == 0 || end < r.Started {
		return "-"
	}
	return duration.HumanDuration(time.Duration(end-r.Started) * time.Second)
}

func at(seconds int64) string {
	if seconds == 0 {
		return "-"
	}
	return time.Unix(seconds, 0).UTC().Format("2006-01-02 15:04:05")
}

// maxNote bounds the last column.
const maxNote = 80

// note is the reason of a failure, or the last line that was printed.
func note(r task.Run, message string) string {
	text := message
	if text == "" || r.Phase == task.PhaseSucceeded {
		lines := strings.Split(strings.TrimRight(r.Tail, "\n"), "\n")
		text = lines[len(lines)-1]
	}
	if text = plain(text); len(text) > maxNote {
		text = task.Cut(text, maxNote) + "…"
	}
	return cmp.Or(text, "-")
}

// plain takes out what would steer a terminal: the text is from a site.
func plain(text string) string {
	return strings.Map(func(c rune) rune {
		if unicode.IsPrint(c) {
			return c
		}
		return ' '
	}, text)
}

func newList(d Deps) *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Short:   "List tasks and schedules",
		Example: "  skerry task list",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ns, err := d.Namespace()
			if err != nil {
				return err
			}
			c, err := d.Objects()
			if err != nil {
				return err
			}
			var tasks v1alpha1.TaskList
			var crons v1alpha1.CronTaskList
			if err := c.List(cmd.Context(), &tasks, client.InNamespace(ns)); err != nil {
				return fmt.Errorf("list tasks: %w", err)
			}
			if err := c.List(cmd.Context(), &crons, client.InNamespace(ns)); err != nil {
				return fmt.Errorf("list crontasks: %w", err)
			}
			return printList(d.Streams.Out, tasks.Items, crons.Items, time.Now())
		},
	}
}

func printList(out io.Writer, tasks []v1alpha1.Task, crons []v1alpha1.CronTask, now time.Time) error {
	slices.SortFunc(tasks, func(a, b v1alpha1.Task) int { return b.CreationTimestamp.Compare(a.CreationTimestamp.Time) })
	w := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	fmt.Fprintln(w, "NAME\tSTATE\tSITES\tRUNNING\tSUCCEEDED\tFAILED\tMISSED\tAWAY\tSCHEDULE\tAGE")
	for i := range tasks {
		t, state := &tasks[i], "-"
		if ready := meta.FindStatusCondition(t.Status.Conditions, v1alpha1.ConditionReady); ready != nil {
			state = ready.Reason
		}
		s := t.Status.Sites
		fmt.Fprintf(w, "task/%s\t%s\t%d\t%d\t%d\t%d\t%d\t%d\t-\t%s\n", t.Name, state, s.Matched, s.Running, s.Succeeded, s.Failed, s.Missed, s.Away,
			duration.HumanDuration(now.Sub(t.CreationTimestamp.Time)))
	}
	for i := range crons {
		c, state := &crons[i], "-"
		if ready := meta.FindStatusCondition(c.Status.Conditions, v1alpha1.ConditionReady); ready != nil {
			state = ready.Reason
		}
		if c.Spec.Suspend {
			state = "Suspended"
		}
		s := c.Status.Sites
		fmt.Fprintf(w, "crontask/%s\t%s\t%d\t%d\t-\t%d\t-\t%d\t%s\t%s\n", c.Name, state, s.Matched, s.Running, s.Failed, s.Away, c.Spec.Schedule,
			duration.HumanDuration(now.Sub(c.CreationTimestamp.Time)))
	}
	return w.Flush()
}
