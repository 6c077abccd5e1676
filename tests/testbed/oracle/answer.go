package oracle

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	fwk "k8s.io/kube-scheduler/framework"
	"k8s.io/kubernetes/pkg/scheduler"
	"k8s.io/kubernetes/pkg/scheduler/framework"
)

// Answer is kube-scheduler's opinion on a case.
type Answer struct {
	// Error says why there is no opinion.
	Error string `json:"error,omitempty"`
	// Message is the pod condition's text when no node is feasible.
	Message string `json:"message,omitempty"`
	// PreFilter holds the reasons of plugins that refuse whatever the nodes
	// have, each asked by itself.
	PreFilter map[string][]string `json:"preFilter,omitempty"`
	// Applied names the filters that have something to say about this pod.
	Applied []string `json:"applied,omitempty"`
	// Nodes are in the order of their names.
	Nodes []*NodeAnswer `json:"nodes,omitempty"`
	// Preemption is the answer to a case that asks for it, and only for it.
	Preemption *PreemptionAnswer `json:"preemption,omitempty"`
}

// NodeAnswer is the opinion on one node.
type NodeAnswer struct {
	Name string `json:"name"`
	// Feasible is the framework's decision.
	Feasible bool `json:"feasible"`
	// Plugin and Reasons are the refusal that the framework reports: the first.
	Plugin  string   `json:"plugin,omitempty"`
	Reasons []string `json:"reasons,omitempty"`
	// Filters holds the reasons of every filter that refuses the node, each
	// asked by itself.
	Filters map[string][]string `json:"filters,omitempty"`
	// Scores are normalised and multiplied by the plugin's weight; only
	// feasible nodes are scored, and plugins that skip are left out.
	Scores map[string]int64 `json:"scores,omitempty"`
	Total  int64            `json:"total"`
}

func (p *profile) answer(ctx context.Context, c *Case) (*Answer, error) {
	if err := c.fill(p.informers); err != nil {
		return nil, err
	}
	p.lister.Snapshot = c.snapshot()
	p.devices.show(c)
	infos, err := p.lister.NodeInfos().List()
	if err != nil {
		return nil, err
	}
	if len(infos) == 0 {
		return &Answer{Message: scheduler.ErrNoNodesAvailable.Error()}, nil
	}
	infos = slices.Clone(infos)
	slices.SortFunc(infos, func(a, b fwk.NodeInfo) int { return strings.Compare(a.Node().Name, b.Node().Name) })
	if err := p.nominator.fill(c.Waiting); err != nil {
		return nil, err
	}
	if c.Preempt {
		found, err := p.preempt(ctx, c, infos)
		return &Answer{Preemption: found}, err
	}
	answer := &Answer{PreFilter: map[string][]string{}}
	for _, info := range infos {
		answer.Nodes = append(answer.Nodes, &NodeAnswer{Name: info.Node().Name, Filters: map[string][]string{}})
	}
	p.askEach(ctx, &c.Pod, infos, answer)
	return answer, p.decide(ctx, &c.Pod, infos, answer)
}

// askEach runs every filter by itself on every node. One that fails is left
// out: in a cycle others may refuse the pod before it is asked, which decide
// finds out.
func (p *profile) askEach(ctx context.Context, pod *v1.Pod, infos []fwk.NodeInfo, answer *Answer) {
	for _, plugin := range p.plugins {
		state := framework.NewCycleState()
		if pre, ok := plugin.(fwk.PreFilterPlugin); ok {
			_, status := pre.PreFilter(ctx, state, pod, infos)
			switch {
			case status.IsSkip():
				continue
			case status.IsRejected():
				answer.PreFilter[plugin.Name()] = status.Reasons()
				continue
			case !status.IsSuccess():
				continue
			}
		}
		filter, ok := plugin.(fwk.FilterPlugin)
		if !ok {
			continue
		}
		refused := make(map[int][]string)
		failed := false
		for i, info := range infos {
			status := filter.Filter(ctx, state, pod, info)
			failed = failed || (!status.IsSuccess() && !status.IsRejected())
			if status.IsRejected() {
				refused[i] = status.Reasons()
			}
		}
		if failed {
			continue
		}
		answer.Applied = append(answer.Applied, plugin.Name())
		for i, reasons := range refused {
			answer.Nodes[i].Filters[plugin.Name()] = reasons
		}
	}
}

// decide does what the scheduling cycle does, on all nodes.
func (p *profile) decide(ctx context.Context, pod *v1.Pod, infos []fwk.NodeInfo, answer *Answer) error {
	state := framework.NewCycleState()
	diagnosis := framework.Diagnosis{NodeToStatus: framework.NewDefaultNodeToStatus()}
	result, status, named := p.framework.RunPreFilterPlugins(ctx, state, pod)
	if !status.IsSuccess() && !status.IsRejected() {
		return status.AsError()
	}
	if status.IsRejected() {
		diagnosis.PreFilterMsg = status.Message()
		diagnosis.NodeToStatus.SetAbsentNodesStatus(status)
		for _, node := range answer.Nodes {
			node.Plugin, node.Reasons = status.Plugin(), status.Reasons()
		}
		answer.Message = message(pod, infos, diagnosis)
		return nil
	}
	others := fmt.Sprintf("node(s) didn't satisfy plugin(s) %v", sets.List(named))
	if !result.AllNodes() {
		diagnosis.NodeToStatus.SetAbsentNodesStatus(fwk.NewStatus(fwk.UnschedulableAndUnresolvable, others))
	}
	var feasible []fwk.NodeInfo
	for i, info := range infos {
		node := answer.Nodes[i]
		if !result.AllNodes() && !result.NodeNames.Has(node.Name) {
			node.Plugin, node.Reasons = strings.Join(sets.List(named), ","), []string{others}
			continue
		}
		status := p.framework.RunFilterPlugins(ctx, state, pod, info)
		if status.IsSuccess() {
			node.Feasible = true
			feasible = append(feasible, info)
			continue
		}
		if !status.IsRejected() {
			return status.AsError()
		}
		node.Plugin, node.Reasons = status.Plugin(), status.Reasons()
		diagnosis.NodeToStatus.Set(node.Name, status)
	}
	if len(feasible) == 0 {
		answer.Message = message(pod, infos, diagnosis)
		return nil
	}
	return p.score(ctx, state, pod, feasible, answer)
}

func message(pod *v1.Pod, infos []fwk.NodeInfo, diagnosis framework.Diagnosis) string {
	return (&framework.FitError{Pod: pod, NumAllNodes: len(infos), Diagnosis: diagnosis}).Error()
}

func (p *profile) score(ctx context.Context, state fwk.CycleState, pod *v1.Pod, feasible []fwk.NodeInfo, answer *Answer) error {
	if status := p.framework.RunPreScorePlugins(ctx, state, pod, feasible); !status.IsSuccess() {
		return status.AsError()
	}
	scored, status := p.framework.RunScorePlugins(ctx, state, pod, feasible)
	if !status.IsSuccess() {
		return status.AsError()
	}
	for _, node := range scored {
		at, found := slices.BinarySearchFunc(answer.Nodes, node.Name, func(n *NodeAnswer, name string) int {
			return strings.Compare(n.Name, name)
		})
		if !found {
			return errors.New("a score for an unknown node: " + node.Name)
		}
		answer.Nodes[at].Total = node.TotalScore
		answer.Nodes[at].Scores = map[string]int64{}
		for _, score := range node.Scores {
			answer.Nodes[at].Scores[score.Name] = score.Score
		}
	}
	return nil
}
