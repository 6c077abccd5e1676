package oracle

import (
	"cmp"
	"slices"
	"strings"

	resourcev1 "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/dynamic-resource-allocation/deviceclass/extendedresourcecache"
	"k8s.io/dynamic-resource-allocation/structured"
	"k8s.io/klog/v2"
	fwk "k8s.io/kube-scheduler/framework"
	"k8s.io/kubernetes/pkg/scheduler/util/assumecache"
)

// devices stands in for kube-scheduler's trackers of claims, slices and classes,
// which only running informers fill: it shows the case at hand.
type devices struct {
	of *Case
	// Which classes of the case stand for extended resources.
	extended *extendedresourcecache.ExtendedResourceCache
}

// show makes a case the one at hand.
func (d *devices) show(c *Case) {
	d.of = c
	d.extended = extendedresourcecache.NewExtendedResourceCache(klog.Logger{})
	// Each class supersedes those before it: one that came after its better would have no name at all, not even its own.
	classes := slices.SortedFunc(slices.Values(c.DeviceClasses), func(a, b *resourcev1.DeviceClass) int {
		return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), strings.Compare(b.Name, a.Name))
	})
	for _, class := range classes {
		d.extended.OnAdd(class, true)
	}
}

func (d *devices) ResourceClaims() fwk.ResourceClaimTracker     { return claimTracker{d} }
func (d *devices) ResourceSlices() fwk.ResourceSliceLister      { return sliceLister{d} }
func (d *devices) DeviceClasses() fwk.DeviceClassLister         { return classLister{d} }
func (d *devices) DeviceClassResolver() fwk.DeviceClassResolver { return d.extended }

type claimTracker struct{ *devices }

func (t claimTracker) List() ([]*resourcev1.ResourceClaim, error) { return t.of.ResourceClaims, nil }

func (t claimTracker) Get(namespace, name string) (*resourcev1.ResourceClaim, error) {
	for _, claim := range t.of.ResourceClaims {
		if claim.Namespace == namespace && claim.Name == name {
			return claim, nil
		}
	}
	return nil, assumecache.NotFoundError{TypeName: "ResourceClaim", ObjectKey: namespace + "/" + name}
}

func (t claimTracker) ListAllAllocatedDevices() (sets.Set[structured.DeviceID], error) {
	state, err := t.GatherAllocatedState()
	return state.AllocatedDevices, err
}

// GatherAllocatedState counts what allocated claims hold. Nothing is in flight.
func (t claimTracker) GatherAllocatedState() (*structured.AllocatedState, error) {
	state := &structured.AllocatedState{
		AllocatedDevices:         sets.New[structured.DeviceID](),
		AllocatedSharedDeviceIDs: sets.New[structured.SharedDeviceID](),
		AggregatedCapacity:       structured.NewConsumedCapacityCollection(),
	}
	for _, claim := range t.of.ResourceClaims {
		if claim.Status.Allocation == nil {
			continue
		}
		for _, result := range claim.Status.Allocation.Devices.Results {
			id := structured.MakeDeviceID(result.Driver, result.Pool, result.Device)
			switch {
			case result.AdminAccess != nil && *result.AdminAccess:
			case result.ShareID == nil:
				state.AllocatedDevices.Insert(id)
			default:
				state.AllocatedSharedDeviceIDs.Insert(structured.MakeSharedDeviceID(id, result.ShareID))
				if result.ConsumedCapacity != nil {
					state.AggregatedCapacity.Insert(structured.NewDeviceConsumedCapacity(id, result.ConsumedCapacity))
				}
			}
		}
	}
	return state, nil
}

func (claimTracker) SignalClaimPendingAllocation(types.UID, *resourcev1.ResourceClaim) error {
	return nil
}
func (claimTracker) GetPendingAllocation(types.UID) *resourcev1.AllocationResult      { return nil }
func (claimTracker) MaybeRemoveClaimPendingAllocation(types.UID, bool) (deleted bool) { return false }
func (claimTracker) AssumeClaimAfterAPICall(*resourcev1.ResourceClaim) error          { return nil }
func (claimTracker) AssumedClaimRestore(string, string)                               {}

type sliceLister struct{ *devices }

// ListWithDeviceTaintRules adds the taints of rules to the devices that they are
// about, as the tracker of slices does.
func (l sliceLister) ListWithDeviceTaintRules() ([]*resourcev1.ResourceSlice, error) {
	all := make([]*resourcev1.ResourceSlice, 0, len(l.of.ResourceSlices))
	for _, slice := range l.of.ResourceSlices {
		slice = slice.DeepCopy()
		for i := range slice.Spec.Devices {
			device := &slice.Spec.Devices[i]
			for _, rule := range l.of.DeviceTaintRules {
				if isAbout(rule.Spec.DeviceSelector, slice, device.Name) {
					device.Taints = append(device.Taints, rule.Spec.Taint)
				}
			}
		}
		all = append(all, slice)
	}
	return all, nil
}

func isAbout(selector *resourcev1.DeviceTaintSelector, slice *resourcev1.ResourceSlice, device string) bool {
	fits := func(wanted *string, name string) bool { return wanted == nil || *wanted == name }
	return selector != nil && fits(selector.Driver, slice.Spec.Driver) &&
		fits(selector.Pool, slice.Spec.Pool.Name) && fits(selector.Device, device)
}

type classLister struct{ *devices }

func (l classLister) List() ([]*resourcev1.DeviceClass, error) { return l.of.DeviceClasses, nil }

func (l classLister) Get(name string) (*resourcev1.DeviceClass, error) {
	for _, class := range l.of.DeviceClasses {
		if class.Name == name {
			return class, nil
		}
	}
	return nil, apierrors.NewNotFound(resourcev1.Resource("deviceclasses"), name)
}
