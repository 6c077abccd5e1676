package oracle

import (
	"encoding/json"
	"fmt"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	v1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	resourcev1 "k8s.io/api/resource/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/tools/cache"
	fwk "k8s.io/kube-scheduler/framework"
	schedulercache "k8s.io/kubernetes/pkg/scheduler/backend/cache"
)

// Case is a cluster and the pod to find a place for.
type Case struct {
	Pod                    v1.Pod                          `json:"pod"`
	Nodes                  []*v1.Node                      `json:"nodes"`
	Pods                   []*v1.Pod                       `json:"pods"`
	Namespaces             []*v1.Namespace                 `json:"namespaces"`
	Services               []*v1.Service                   `json:"services"`
	ReplicationControllers []*v1.ReplicationController     `json:"replicationControllers"`
	ReplicaSets            []*appsv1.ReplicaSet            `json:"replicaSets"`
	StatefulSets           []*appsv1.StatefulSet           `json:"statefulSets"`
	PersistentVolumes      []*v1.PersistentVolume          `json:"persistentVolumes"`
	PersistentVolumeClaims []*v1.PersistentVolumeClaim     `json:"persistentVolumeClaims"`
	StorageClasses         []*storagev1.StorageClass       `json:"storageClasses"`
	CSINodes               []*storagev1.CSINode            `json:"csiNodes"`
	CSIDrivers             []*storagev1.CSIDriver          `json:"csiDrivers"`
	VolumeAttachments      []*storagev1.VolumeAttachment   `json:"volumeAttachments"`
	CSIStorageCapacities   []*storagev1.CSIStorageCapacity `json:"csiStorageCapacities"`
	ResourceClaims         []*resourcev1.ResourceClaim     `json:"resourceClaims"`
	ResourceSlices         []*resourcev1.ResourceSlice     `json:"resourceSlices"`
	DeviceClasses          []*resourcev1.DeviceClass       `json:"deviceClasses"`
	DeviceTaintRules       []*resourcev1.DeviceTaintRule   `json:"deviceTaintRules"`
	// Configuration is a KubeSchedulerConfiguration with one profile; none is
	// the default.
	Configuration json.RawMessage `json:"configuration,omitempty"`
	// Waiting pods that were promised a node.
	Waiting              []*v1.Pod                       `json:"waiting"`
	PodDisruptionBudgets []*policyv1.PodDisruptionBudget `json:"podDisruptionBudgets"`
	// Preempt asks whom it would evict, and nothing else.
	Preempt bool `json:"preempt"`
}

// snapshot holds what kube-scheduler's cache would: pods on known nodes that
// have not ended, which its informer leaves out.
func (c *Case) snapshot() *schedulercache.Snapshot {
	known := make(map[string]bool, len(c.Nodes))
	for _, node := range c.Nodes {
		known[node.Name] = true
	}
	placed := slices.DeleteFunc(slices.Clone(c.Pods), func(pod *v1.Pod) bool {
		ended := pod.Status.Phase == v1.PodSucceeded || pod.Status.Phase == v1.PodFailed
		return ended || !known[pod.Spec.NodeName]
	})
	return schedulercache.NewSnapshot(placed, c.Nodes)
}

// fill replaces what the listers list.
func (c *Case) fill(factory informers.SharedInformerFactory) error {
	core, apps, storage := factory.Core().V1(), factory.Apps().V1(), factory.Storage().V1()
	for _, list := range []struct {
		informer cache.SharedIndexInformer
		objects  []any
	}{
		{core.Namespaces().Informer(), anys(c.Namespaces)},
		{core.Services().Informer(), anys(c.Services)},
		{core.ReplicationControllers().Informer(), anys(c.ReplicationControllers)},
		{apps.ReplicaSets().Informer(), anys(c.ReplicaSets)},
		{apps.StatefulSets().Informer(), anys(c.StatefulSets)},
		{core.PersistentVolumes().Informer(), anys(c.PersistentVolumes)},
		{core.PersistentVolumeClaims().Informer(), anys(c.PersistentVolumeClaims)},
		{storage.StorageClasses().Informer(), anys(c.StorageClasses)},
		{storage.CSINodes().Informer(), anys(c.CSINodes)},
		{storage.CSIDrivers().Informer(), anys(c.CSIDrivers)},
		{storage.VolumeAttachments().Informer(), anys(c.VolumeAttachments)},
		{storage.CSIStorageCapacities().Informer(), anys(c.CSIStorageCapacities)},
	} {
		if err := list.informer.GetIndexer().Replace(list.objects, ""); err != nil {
			return fmt.Errorf("filling a lister: %w", err)
		}
	}
	return nil
}

func anys[T any](objects []T) []any {
	all := make([]any, 0, len(objects))
	for _, object := range objects {
		all = append(all, object)
	}
	return all
}

// lister gives the plugins, which keep it, the snapshot of the case at hand.
type lister struct {
	*schedulercache.Snapshot
}

// Plugins ask for the node lister when they are made and keep it, so it has to
// find the snapshot anew at each call.
type nodeLister struct{ of *lister }

func (l *lister) NodeInfos() fwk.NodeInfoLister       { return nodeLister{l} }
func (l *lister) StorageInfos() fwk.StorageInfoLister { return storageLister{l} }

func (n nodeLister) List() ([]fwk.NodeInfo, error) { return n.of.Snapshot.List() }
func (n nodeLister) HavePodsWithAffinityList() ([]fwk.NodeInfo, error) {
	return n.of.Snapshot.HavePodsWithAffinityList()
}
func (n nodeLister) HavePodsWithRequiredAntiAffinityList() ([]fwk.NodeInfo, error) {
	return n.of.Snapshot.HavePodsWithRequiredAntiAffinityList()
}
func (n nodeLister) HavePodsWithRequiredNonHostScopedAntiAffinityList() ([]fwk.NodeInfo, error) {
	return n.of.Snapshot.HavePodsWithRequiredNonHostScopedAntiAffinityList()
}
func (n nodeLister) Get(name string) (fwk.NodeInfo, error) { return n.of.Snapshot.Get(name) }

type storageLister struct{ of *lister }

func (s storageLister) IsPVCUsedByPods(key string) bool { return s.of.Snapshot.IsPVCUsedByPods(key) }
