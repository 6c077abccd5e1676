package oracle

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"os"

	"github.com/spf13/cobra"
	resourcev1 "k8s.io/api/resource/v1"
	dracel "k8s.io/dynamic-resource-allocation/cel"
)

// Selection is an expression and the device that it is asked about.
type Selection struct {
	Expression string            `json:"expression"`
	Driver     string            `json:"driver"`
	Device     resourcev1.Device `json:"device"`
}

// Selected is what kube-scheduler's CEL says about it.
type Selected struct {
	// Compile and Run say why there is no result.
	Compile string `json:"compile,omitempty"`
	Run     string `json:"run,omitempty"`
	Matches bool   `json:"matches"`
	// Cost is in CEL's units.
	Cost uint64 `json:"cost"`
}

// newCelCommand returns the command "oracle cel".
func newCelCommand() *cobra.Command {
	return &cobra.Command{
		Use:          "cel",
		Short:        "Evaluate device selectors, one JSON line each, as kube-scheduler does",
		Args:         cobra.NoArgs,
		SilenceUsage: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return ServeCel(cmd.Context(), os.Stdin, os.Stdout)
		},
	}
}

// ServeCel answers selections until the input ends.
func ServeCel(ctx context.Context, in io.Reader, out io.Writer) error {
	if ctx == nil {
		ctx = context.Background()
	}
	// The features that are on by default in 1.37.
	cache := dracel.NewCache(100, dracel.Features{EnableConsumableCapacity: true})
	lines := bufio.NewScanner(in)
	lines.Buffer(make([]byte, 1<<20), maxLineBytes)
	encoder := json.NewEncoder(out)
	for lines.Scan() {
		var selection Selection
		if err := json.Unmarshal(lines.Bytes(), &selection); err != nil {
			return err
		}
		if err := encoder.Encode(selected(ctx, cache, &selection)); err != nil {
			return err
		}
	}
	return lines.Err()
}

func selected(ctx context.Context, cache *dracel.Cache, of *Selection) *Selected {
	program := cache.GetOrCompile(of.Expression)
	if program.Error != nil {
		return &Selected{Compile: program.Error.Error()}
	}
	matches, details, err := program.DeviceMatches(ctx, dracel.Device{
		Driver:                   of.Driver,
		AllowMultipleAllocations: of.Device.AllowMultipleAllocations,
		Attributes:               of.Device.Attributes,
		Capacity:                 of.Device.Capacity,
	})
	answer := &Selected{Matches: matches}
	if err != nil {
		answer.Run = err.Error()
	}
	if details != nil && details.ActualCost() != nil {
		answer.Cost = *details.ActualCost()
	}
	return answer
}
