// Package oracle answers what kube-scheduler would say: its own plugins, in its
// own framework runtime with the default profile or one that the case
// configures, asked about one pod and one cluster at a time. It reads one case as JSON from each line of its input and
// writes one answer as a line of JSON. Nothing is listened on and nobody is
// called: what the plugins would learn from informers comes from the case.
//
//	case ──> snapshot, listers ──> PreFilter ──> Filter ──> PreScore, Score ──> answer
//	                                  │            │
//	                                  └── again, each plugin by itself
//
// The plugin of volume binding lays what it assumes over the stores of the
// informers, which are filled directly; nothing is ever assumed here. What the
// plugin of resource claims would learn from informers, a stand-in shows it.
package oracle

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
	"k8s.io/klog/v2"
)

// A line holds a whole cluster.
const maxLineBytes = 64 << 20

// NewCommand returns the command "oracle".
func NewCommand() *cobra.Command {
	command := &cobra.Command{
		Use:          "oracle",
		Short:        "Answer scheduling cases, one JSON line each, with kube-scheduler's own plugins",
		Args:         cobra.NoArgs,
		SilenceUsage: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return Serve(cmd.Context(), os.Stdin, os.Stdout)
		},
	}
	command.AddCommand(newCelCommand())
	return command
}

// Serve answers cases until the input ends. A case that cannot be read is
// answered with its error; only broken input or output ends the service.
func Serve(ctx context.Context, in io.Reader, out io.Writer) error {
	if ctx == nil {
		ctx = context.Background()
	}
	ctx, cancel := context.WithCancel(klog.NewContext(ctx, klog.Logger{}))
	defer cancel()
	all := profiles{}
	if _, err := all.of(ctx, nil); err != nil {
		return fmt.Errorf("the default profile: %w", err)
	}
	lines := bufio.NewScanner(in)
	lines.Buffer(make([]byte, 1<<20), maxLineBytes)
	buffered := bufio.NewWriter(out)
	encoder := json.NewEncoder(buffered)
	for lines.Scan() {
		if err := encoder.Encode(all.answerLine(ctx, lines.Bytes())); err != nil {
			return err
		}
		if err := buffered.Flush(); err != nil {
			return err
		}
	}
	return lines.Err()
}

func (all profiles) answerLine(ctx context.Context, line []byte) *Answer {
	c, err := readCase(line)
	if err != nil {
		return &Answer{Error: fmt.Sprintf("reading the case: %v", err)}
	}
	profile, err := all.of(ctx, c.Configuration)
	if err != nil {
		return &Answer{Error: err.Error()}
	}
	answer, err := profile.answerCase(ctx, c)
	if err != nil {
		return &Answer{Error: err.Error()}
	}
	return answer
}

// answerCase answers a case; a plugin that panics has no opinion.
func (p *profile) answerCase(ctx context.Context, c *Case) (answer *Answer, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("kube-scheduler panics: %v", r)
		}
	}()
	return p.answer(ctx, c)
}

// readCase reads a case as it would come from an API server, which writes
// quantities in canonical form. It matters: "0.5Gi" as such is held behind a
// pointer, and PodRequests adds the overhead to what that points to, so that a
// pod would ask for more each time it is looked at.
func readCase(line []byte) (*Case, error) {
	var written, read Case
	if err := json.Unmarshal(line, &written); err != nil {
		return nil, err
	}
	canonical, err := json.Marshal(&written)
	if err != nil {
		return nil, err
	}
	return &read, json.Unmarshal(canonical, &read)
}
