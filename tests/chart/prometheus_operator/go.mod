// The Prometheus operator's CustomResourceDefinitions, which its module ships: nothing is compiled.
module ratchet.dev/tests/prometheus-operator

go 1.24.0

require github.com/prometheus-operator/prometheus-operator v0.85.0
