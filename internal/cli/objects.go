package cli

import (
	"strings"

	"github.com/spf13/cobra"
	"k8s.io/kubectl/pkg/cmd/apiresources"
	"k8s.io/kubectl/pkg/cmd/apply"
	"k8s.io/kubectl/pkg/cmd/delete"
	"k8s.io/kubectl/pkg/cmd/describe"
	"k8s.io/kubectl/pkg/cmd/diff"
	"k8s.io/kubectl/pkg/cmd/explain"
	"k8s.io/kubectl/pkg/cmd/get"
	"k8s.io/kubectl/pkg/cmd/label"
	cmdutil "k8s.io/kubectl/pkg/cmd/util"
	"k8s.io/kubectl/pkg/cmd/wait"
)

// objectCommands are kubectl's own, so that nobody needs to install it and nothing behaves differently.
func objectCommands(g *globals) []*cobra.Command {
	f := cmdutil.NewFactory(cmdutil.NewMatchVersionFlags(g.flags))
	const parent = "skerry"
	commands := []*cobra.Command{
		get.NewCmdGet(parent, f, g.streams),
		apply.NewCmdApply(parent, f, g.streams),
		delete.NewCmdDelete(f, g.streams),
		describe.NewCmdDescribe(parent, f, g.streams),
		explain.NewCmdExplain(parent, f, g.streams),
		diff.NewCmdDiff(f, g.streams),
		label.NewCmdLabel(f, g.streams),
		wait.NewCmdWait(g.flags, g.streams),
		apiresources.NewCmdAPIResources(f, g.streams),
	}
	for _, c := range commands {
		rename(c)
	}
	return commands
}

// rename makes the help of kubectl's commands speak of this one.
func rename(c *cobra.Command) {
	c.Example = strings.ReplaceAll(c.Example, "kubectl", "skerry")
	c.Long = strings.ReplaceAll(c.Long, "kubectl", "skerry")
	for _, sub := range c.Commands() {
		rename(sub)
	}
}
