package sitecli

import "github.com/spf13/cobra"

// UsageError is an error of the person's own command line; programs end with status 2 for it.
type UsageError struct{ error }

// Unwrap lets errors.Is and errors.As see the cause.
func (u UsageError) Unwrap() error { return u.error }

// MarkUsage makes every error about flags and arguments of c, and of the commands below it, a UsageError.
func MarkUsage(c *cobra.Command) {
	c.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return UsageError{err} })
	markArgs(c)
}

func markArgs(c *cobra.Command) {
	if check := c.Args; check != nil {
		c.Args = func(cmd *cobra.Command, args []string) error {
			if err := check(cmd, args); err != nil {
				return UsageError{err}
			}
			return nil
		}
	}
	for _, sub := range c.Commands() {
		markArgs(sub)
	}
}
