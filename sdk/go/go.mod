module github.com/skerry-dev/skerry/sdk/go

go 1.24
