// Package manifest reads manifests: files and folders of YAML and JSON into objects that know their places.
//
// A stream of documents is split before it is parsed, so one that is broken takes none of the others away and no more
// than one is in memory as a tree of the parser. Scalars are typed as kubectl types them (YAML 1.1: yes and on are
// true). Input is bounded by Limits; what is beyond them or cannot be read is a finding with a place, never a panic.
//
// It is a leaf of package check around go.yaml.in/yaml/v3; the command line imports it.
package manifest
