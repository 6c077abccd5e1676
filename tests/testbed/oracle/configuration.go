package oracle

import (
	"context"
	"fmt"

	configv1 "k8s.io/kube-scheduler/config/v1"
	"k8s.io/kubernetes/pkg/scheduler/apis/config"
	"k8s.io/kubernetes/pkg/scheduler/apis/config/scheme"
	"k8s.io/kubernetes/pkg/scheduler/apis/config/validation"
)

// profiles holds one profile for each configuration that was asked about: a
// framework takes long to make, and cases share a few dozen configurations.
type profiles map[string]*profile

// of returns the only profile of a KubeSchedulerConfiguration; an empty one is
// the default.
func (all profiles) of(ctx context.Context, configuration []byte) (*profile, error) {
	if known, ok := all[string(configuration)]; ok {
		return known, nil
	}
	configured, err := configuredProfile(configuration)
	if err != nil {
		return nil, fmt.Errorf("reading the configuration: %w", err)
	}
	made, err := newProfile(ctx, configured)
	if err != nil {
		return nil, fmt.Errorf("building the profile: %w", err)
	}
	all[string(configuration)] = made
	return made, nil
}

// configuredProfile reads, defaults and validates as kube-scheduler does at its
// start.
func configuredProfile(configuration []byte) (*config.KubeSchedulerProfile, error) {
	var internal *config.KubeSchedulerConfiguration
	if len(configuration) == 0 {
		var versioned configv1.KubeSchedulerConfiguration
		scheme.Scheme.Default(&versioned)
		internal = &config.KubeSchedulerConfiguration{}
		if err := scheme.Scheme.Convert(&versioned, internal, nil); err != nil {
			return nil, err
		}
	} else {
		object, _, err := scheme.Codecs.UniversalDecoder().Decode(configuration, nil, nil)
		if err != nil {
			return nil, err
		}
		decoded, ok := object.(*config.KubeSchedulerConfiguration)
		if !ok {
			return nil, fmt.Errorf("want a KubeSchedulerConfiguration, got %T", object)
		}
		internal = decoded
		if err := validation.ValidateKubeSchedulerConfiguration(internal); err != nil {
			return nil, err
		}
	}
	if len(internal.Profiles) != 1 {
		return nil, fmt.Errorf("want one profile, got %d", len(internal.Profiles))
	}
	return &internal.Profiles[0], nil
}
