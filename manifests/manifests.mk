# Targets for what is deployed; included by the Makefile.
CRDGEN := cargo run --quiet -p flowforge-api --example crdgen
KUSTOMIZE := go -C manifests/tools tool kustomize
INSTALL_HEAD := \# Generated from manifests/base by `make manifests`; do not edit.
IMAGE_TAG ?= v0.1.0

## -- deployment -----------------------------------------------------------------------------------------------------
.PHONY: manifests
manifests: ## Write the generated manifests: CRDs from api/, install.yaml from manifests/base
	$(CRDGEN)
	{ echo '$(INSTALL_HEAD)'; $(KUSTOMIZE) build ../base; } > manifests/install.yaml

.PHONY: manifests-fresh
manifests-fresh: ## Read-only: the generated manifests are what they would be written as
	$(CRDGEN) -- --check
	@{ echo '$(INSTALL_HEAD)'; $(KUSTOMIZE) build ../base; } | diff -u manifests/install.yaml - \
		|| { echo 'manifests/install.yaml is stale: run `make manifests` and commit the result'; exit 1; }

.PHONY: manifests-check
manifests-check: binaries testbed ## Apply every manifest to a real API server: dry run, strict field validation
	cargo test -p flowforge-tests --test manifests_check -- --nocapture

.PHONY: install-crds
install-crds: ## Install the CRDs into the cluster of your kubeconfig
	kubectl apply --server-side -k manifests/crds

.PHONY: install
install: ## Install FlowForge into the cluster of your kubeconfig
	kubectl apply --server-side -f manifests/install.yaml

.PHONY: deploy-example
deploy-example: ## Submit examples/basic to the cluster of your kubeconfig and follow it
	kubectl apply -f examples/basic/claim.yaml
	cargo run --quiet -p flowforge-cli -- submit -f examples/basic/workflow.yaml --watch

.PHONY: images
images: ## Build the static images with the container engine that is here (docker, podman or buildah)
	hack/images $(IMAGE_TAG)
