package oracle

import (
	"context"
	"errors"
	"fmt"
	"slices"

	v1 "k8s.io/api/core/v1"
	"k8s.io/klog/v2"
	fwk "k8s.io/kube-scheduler/framework"
	"k8s.io/kubernetes/pkg/scheduler/framework"
	"k8s.io/kubernetes/pkg/scheduler/framework/plugins/defaultpreemption"
	"k8s.io/kubernetes/pkg/scheduler/framework/plugins/names"
)

// PreemptionAnswer is whom kube-scheduler would evict for the pod of a case.
type PreemptionAnswer struct {
	// Feasible says that some node takes the pod as things are: nobody is
	// evicted.
	Feasible bool `json:"feasible,omitempty"`
	// Message is the pod condition's text; without what is said of a candidate
	// when there is one.
	Message string `json:"message,omitempty"`
	// Node is the candidate; empty when there is none.
	Node string `json:"node,omitempty"`
	// Victims are the names of the pods, the most important first.
	Victims []string `json:"victims,omitempty"`
	// Violations counts the pods whose eviction breaks a budget.
	Violations int64 `json:"violations"`
	// Candidates are the nodes among which it was chosen.
	Candidates []string `json:"candidates,omitempty"`
}

// nominator knows the pods of the case at hand that were promised a node.
type nominator struct{ waiting []fwk.PodInfo }

func (n *nominator) AddNominatedPod(klog.Logger, fwk.PodInfo, *fwk.NominatingInfo) {}
func (n *nominator) DeleteNominatedPodIfExists(*v1.Pod)                            {}
func (n *nominator) UpdateNominatedPod(klog.Logger, *v1.Pod, fwk.PodInfo)          {}

func (n *nominator) NominatedPodsForNode(node string) []fwk.PodInfo {
	var here []fwk.PodInfo
	for _, pod := range n.waiting {
		if pod.GetPod().Status.NominatedNodeName == node {
			here = append(here, pod)
		}
	}
	return here
}

func (n *nominator) fill(waiting []*v1.Pod) error {
	n.waiting = nil
	for _, pod := range waiting {
		info, err := framework.NewPodInfo(pod)
		if err != nil {
			return err
		}
		n.waiting = append(n.waiting, info)
	}
	return nil
}

// preempt does what the scheduling cycle does with a pod that no node takes,
// but for the eviction itself.
func (p *profile) preempt(ctx context.Context, c *Case, infos []fwk.NodeInfo) (*PreemptionAnswer, error) {
	state := framework.NewCycleState()
	diagnosis := framework.Diagnosis{NodeToStatus: framework.NewDefaultNodeToStatus()}
	result, status, _ := p.framework.RunPreFilterPlugins(ctx, state, &c.Pod)
	switch {
	case status.IsRejected():
		diagnosis.PreFilterMsg = status.Message()
		diagnosis.NodeToStatus.SetAbsentNodesStatus(status)
	case !status.IsSuccess():
		return nil, status.AsError()
	default:
		feasible, err := p.filter(ctx, state, &c.Pod, infos, result, &diagnosis)
		if err != nil || feasible {
			return &PreemptionAnswer{Feasible: feasible}, err
		}
	}
	answer := &PreemptionAnswer{}
	said, err := p.candidate(ctx, state, c, len(infos), diagnosis.NodeToStatus, answer)
	if err != nil {
		return nil, err
	}
	diagnosis.PostFilterMsg = said
	answer.Message = message(&c.Pod, infos, diagnosis)
	return answer, nil
}

func (p *profile) filter(ctx context.Context, state fwk.CycleState, pod *v1.Pod, infos []fwk.NodeInfo, result *fwk.PreFilterResult, diagnosis *framework.Diagnosis) (bool, error) {
	if !result.AllNodes() {
		others := fwk.NewStatus(fwk.UnschedulableAndUnresolvable, "node(s) didn't satisfy plugin(s) [NodeAffinity]")
		diagnosis.NodeToStatus.SetAbsentNodesStatus(others)
	}
	for _, info := range infos {
		if !result.AllNodes() && !result.NodeNames.Has(info.Node().Name) {
			continue
		}
		status := p.framework.RunFilterPluginsWithNominatedPods(ctx, state, pod, info)
		if status.IsSuccess() {
			return true, nil
		}
		if !status.IsRejected() {
			return false, status.AsError()
		}
		diagnosis.NodeToStatus.Set(info.Node().Name, status)
	}
	return false, nil
}

// candidate fills in the best candidate and says what the plugin would say.
func (p *profile) candidate(ctx context.Context, state fwk.CycleState, c *Case, nodes int, statuses *framework.NodeToStatus, answer *PreemptionAnswer) (string, error) {
	at := slices.IndexFunc(p.plugins, func(plugin fwk.Plugin) bool { return plugin.Name() == names.DefaultPreemption })
	if at < 0 {
		return "", errors.New("the profile has no DefaultPreemption")
	}
	plugin, ok := p.plugins[at].(*defaultpreemption.DefaultPreemption)
	if !ok {
		return "", fmt.Errorf("DefaultPreemption is a %T", p.plugins[at])
	}
	if ok, why := plugin.PodEligibleToPreemptOthers(ctx, &c.Pod, statuses.Get(c.Pod.Status.NominatedNodeName)); !ok {
		return "preemption: " + why, nil
	}
	potential, err := statuses.NodesForStatusCode(p.lister.NodeInfos(), fwk.Unschedulable)
	if err != nil {
		return "", err
	}
	// As upstream does it, nodes that were not looked at are not among these.
	refused := framework.NewDefaultNodeToStatus()
	if len(potential) > 0 {
		// So many candidates are wanted that no node is left out.
		all := int32(len(potential))
		found, statuses, err := plugin.Evaluator.DryRunPreemption(ctx, state, &c.Pod, potential, c.PodDisruptionBudgets, 0, all)
		if best := plugin.Evaluator.SelectCandidate(ctx, found); best != nil {
			answer.Node, answer.Violations = best.Name(), best.Victims().NumPDBViolations
			for _, victim := range best.Victims().Pods {
				answer.Victims = append(answer.Victims, victim.Name)
			}
			for _, candidate := range found {
				answer.Candidates = append(answer.Candidates, candidate.Name())
			}
			slices.Sort(answer.Candidates)
			return "", nil
		}
		if err != nil {
			return "", err
		}
		refused = statuses
	}
	refused.SetAbsentNodesStatus(fwk.NewStatus(fwk.UnschedulableAndUnresolvable, "Preemption is not helpful for scheduling"))
	fit := framework.FitError{Pod: &c.Pod, NumAllNodes: nodes, Diagnosis: framework.Diagnosis{NodeToStatus: refused}}
	return "preemption: " + fit.Error(), nil
}
