package main

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	api "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
)

var dgx = options{resource: "nvidia.com/gpu", node: "dgx-0", prefix: "GPU", count: 8, numaNodes: 2}

func TestDevicesAreHalvedOverNUMANodes(t *testing.T) {
	for _, row := range []struct {
		count, nodes int
		want         []int64
	}{
		{8, 2, []int64{0, 0, 0, 0, 1, 1, 1, 1}},
		{4, 1, []int64{0, 0, 0, 0}},
		{5, 2, []int64{0, 0, 0, 1, 1}},
		{4, 4, []int64{0, 1, 2, 3}},
	} {
		for index, want := range row.want {
			if got := numaNode(index, row.count, row.nodes); got != want {
				t.Errorf("device %d of %d on %d nodes is on %d, want %d", index, row.count, row.nodes, got, want)
			}
		}
	}
}

func TestDeviceIDsAreUniqueStableAndShort(t *testing.T) {
	seen := map[string]bool{}
	for _, node := range []string{"dgx-0", "dgx-1"} {
		for index := range 8 {
			o := dgx
			o.node = node
			id := deviceID(o, index)
			if seen[id] || len(id) != len("GPU-00000000-0000-0000-0000-000000000000") || id != deviceID(o, index) {
				t.Errorf("bad id %q", id)
			}
			seen[id] = true
		}
	}
}

func TestBrokenDevicesAreReadFromTheFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "broken")
	if broken, err := readBroken(path); broken != nil || err != nil {
		t.Errorf("no file: %v, %v", broken, err)
	}
	for text, want := range map[string][]int{"": nil, "3\n": {3}, "0\n7\n": {0, 7}} {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if broken, err := readBroken(path); err != nil || !slices.Equal(broken, want) {
			t.Errorf("%q: %v, %v", text, broken, err)
		}
	}
	if err := os.WriteFile(path, []byte("three"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := readBroken(path); err == nil {
		t.Error("garbage is accepted")
	}
	for index, device := range devices(dgx, []int{3}) {
		if (device.GetHealth() == api.Unhealthy) != (index == 3) {
			t.Errorf("device %d is %s", index, device.GetHealth())
		}
	}
}

func TestTheTightestNUMANodeIsPreferred(t *testing.T) {
	all := devices(dgx, nil)
	for name, row := range map[string]struct {
		available, must []int
		size            int32
		want            []int
	}{
		"an empty node, one NUMA node":         {[]int{0, 1, 2, 3, 4, 5, 6, 7}, nil, 4, []int{0, 1, 2, 3}},
		"the fuller half when it fits":         {[]int{0, 1, 2, 3, 6, 7}, nil, 2, []int{6, 7}},
		"the emptier half when it must":        {[]int{2, 3, 4, 5, 6, 7}, nil, 3, []int{4, 5, 6}},
		"both halves, the larger part first":   {[]int{2, 3, 5, 6, 7}, nil, 4, []int{5, 6, 7, 2}},
		"all":                                  {[]int{0, 1, 2, 3, 4, 5, 6, 7}, nil, 8, []int{0, 1, 2, 3, 4, 5, 6, 7}},
		"what must be is kept":                 {[]int{0, 1, 5}, []int{5}, 2, []int{5, 0}},
		"nothing more than what must be":       {[]int{0, 1, 5}, []int{5}, 1, []int{5}},
		"fewer than asked when there are less": {[]int{1}, nil, 2, []int{1}},
	} {
		request := &api.ContainerPreferredAllocationRequest{AllocationSize: row.size}
		for _, index := range row.available {
			request.AvailableDeviceIDs = append(request.AvailableDeviceIDs, all[index].GetID())
		}
		for _, index := range row.must {
			request.MustIncludeDeviceIDs = append(request.MustIncludeDeviceIDs, all[index].GetID())
		}
		var got []int
		for _, id := range prefer(all, request) {
			got = append(got, slices.IndexFunc(all, func(d *api.Device) bool { return d.GetID() == id }))
		}
		if !slices.Equal(got, row.want) {
			t.Errorf("%s: got %v, want %v", name, got, row.want)
		}
	}
}

func TestBadOptionsAreRefused(t *testing.T) {
	if err := dgx.validate(); err != nil {
		t.Error(err)
	}
	for name, change := range map[string]func(*options){
		"no node":       func(o *options) { o.node = "" },
		"no domain":     func(o *options) { o.resource = "gpu" },
		"no devices":    func(o *options) { o.count = 0 },
		"a flood":       func(o *options) { o.count = 5000 },
		"more NUMA":     func(o *options) { o.numaNodes = 9 },
		"a long prefix": func(o *options) { o.prefix = "GPU-GPU-GPU-GPU-GPU-GPU-GPU" },
		"negative NUMA": func(o *options) { o.numaNodes = -1 },
	} {
		bad := dgx
		change(&bad)
		if bad.validate() == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}
