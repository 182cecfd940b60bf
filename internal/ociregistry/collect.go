package ociregistry

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"time"

	"github.com/skerry-dev/skerry/internal/fleet"
)

// Tag is one tag, as Keep is asked about it.
type Tag struct {
	Repository string
	Name       string
	Digest     fleet.Digest
	// Pushed is when the tag was last written, by the hub's clock.
	Pushed time.Time
}

// Keep says what Collect must not remove.
type Keep struct {
	// Live are the digests that releases name.
	Live []fleet.Digest
	// Tag reports whether a tag that is older than the grace period is kept; nil keeps every tag.
	Tag func(Tag) bool
}

// Stats say what Collect removed, and what it found.
type Stats struct {
	Tags, Links, Blobs int
	Bytes              int64
	// Kept is the number of blobs that stay.
	Kept int
}

// Collect removes what nothing needs any more:
//
//  1. Tags that keep.Tag gives up, unless they were pushed within grace.
//  2. Links to manifests and blobs that are not reached from a live digest, from a tag that is left, or
//     as a referrer (a signature, an SBOM) of something reached, unless they were pushed, mounted, asked for by
//     HEAD, resolved or named by a pushed manifest within grace.
//  3. Content that no link names and nothing reaches, unless it was written within grace.
//
// Pushes may go on: what they name is younger than grace. It removes nothing and returns an error when
// what a root reaches cannot be told, because something on the way is corrupt; after the grace period
// such content counts as lost. Uploads that expired and content set aside longer ago than grace go too.
func (r *Registry) Collect(ctx context.Context, keep Keep, grace time.Duration) (Stats, error) {
	r.collecting.Lock()
	defer r.collecting.Unlock()
	r.uploads.expire()
	c := &collection{Registry: r, ctx: ctx, keep: keep, before: r.opts.Now().Add(-grace), marked: map[fleet.Digest]struct{}{}, named: map[fleet.Digest]struct{}{}}
	for _, step := range []func() error{c.dropQuarantined, c.dropTags, c.mark, c.dropLinks, c.dropBlobs} {
		if err := step(); err != nil {
			return c.stats, fmt.Errorf("collect: %w", err)
		}
	}
	r.metrics.removed.Add(float64(c.stats.Bytes))
	return c.stats, nil
}

// collection is one run of Collect.
type collection struct {
	*Registry
	ctx    context.Context
	keep   Keep
	before time.Time // what is younger stays
	repos  []string
	tagged []fleet.Digest
	marked map[fleet.Digest]struct{} // reached from a root
	named  map[fleet.Digest]struct{} // linked in some repository after dropLinks
	stats  Stats
}

func (c *collection) dropQuarantined() error {
	entries, err := c.disk.list(quarantineDir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if _, err := c.removeOld(path.Join(quarantineDir, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// removeOld removes a file unless it is younger than the grace period. Its age is looked at while
// nothing can be touched.
func (c *collection) removeOld(name string) (bool, error) {
	if err := c.ctx.Err(); err != nil {
		return false, err
	}
	c.sweep.Lock()
	defer c.sweep.Unlock()
	info, err := c.disk.root.Lstat(name)
	if err != nil || !info.ModTime().Before(c.before) {
		return false, ignoreNotExist(err)
	}
	err = c.disk.root.Remove(name)
	return err == nil, ignoreNotExist(err)
}

func ignoreNotExist(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// dropTags gives up tags and notes what the others name.
func (c *collection) dropTags() error {
	if err := c.listRepos(); err != nil {
		return err
	}
	for _, repo := range c.repos {
		tags, err := c.disk.list(linkPath(repo, tagLinks, ""))
		if err != nil {
			return err
		}
		for _, t := range tags {
			if err := c.dropTag(repo, t); err != nil {
				return fmt.Errorf("tag %s: %w", display(repo, t.Name()), err)
			}
		}
	}
	return nil
}

func (c *collection) dropTag(repo string, e fs.DirEntry) error {
	d, err := c.tag(repo, e.Name())
	if err != nil {
		return ignoreNotExist(err)
	}
	info, err := e.Info()
	if err != nil {
		return ignoreNotExist(err)
	}
	if c.keep.Tag == nil || c.keep.Tag(Tag{Repository: repo, Name: e.Name(), Digest: d, Pushed: info.ModTime()}) {
		c.tagged = append(c.tagged, d)
		return nil
	}
	gone, err := c.removeOld(linkPath(repo, tagLinks, e.Name()))
	if gone {
		c.stats.Tags++
	} else {
		c.tagged = append(c.tagged, d)
	}
	return err
}

func (c *collection) listRepos() error {
	namespaces, err := c.disk.list(repoDir)
	if err != nil {
		return err
	}
	for _, ns := range namespaces {
		names, err := c.disk.list(path.Join(repoDir, ns.Name()))
		if err != nil {
			return err
		}
		for _, n := range names {
			c.repos = append(c.repos, ns.Name()+"/"+n.Name())
		}
	}
	return nil
}

// mark finds everything that a root reaches.
func (c *collection) mark() error {
	roots := append(append([]fleet.Digest{}, c.keep.Live...), c.tagged...)
	for len(roots) > 0 {
		root := roots[0]
		roots = roots[1:]
		if err := errors.Join(c.ctx.Err(), root.Validate()); err != nil {
			return err
		}
		if _, done := c.marked[root]; done {
			continue
		}
		reached, err := c.closure(root)
		if err != nil {
			return fmt.Errorf("nothing was removed, because what %s needs cannot be told: %w", root, err)
		}
		for d := range reached {
			c.marked[d] = struct{}{}
			referrers, err := c.referrersOf(d)
			if err != nil {
				return err
			}
			roots = append(roots, referrers...)
		}
	}
	return nil
}

func (c *collection) referrersOf(d fleet.Digest) ([]fleet.Digest, error) {
	var out []fleet.Digest
	for _, repo := range c.repos {
		entries, err := c.disk.list(linkPath(repo, referrerLinks, d.Hex()))
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			out = append(out, fleet.Digest("sha256:"+e.Name()))
		}
	}
	return out, nil
}

// dropLinks removes links to what nothing reaches, manifests first: a repository never has a manifest
// without its content.
func (c *collection) dropLinks() error {
	for _, k := range []linkKind{manifestLinks, blobLinks} {
		for _, repo := range c.repos {
			links, err := c.disk.list(linkPath(repo, k, ""))
			if err != nil {
				return err
			}
			for _, l := range links {
				if err := c.dropLink(repo, k, fleet.Digest("sha256:"+l.Name())); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (c *collection) dropLink(repo string, k linkKind, d fleet.Digest) error {
	if _, reached := c.marked[d]; reached {
		c.named[d] = struct{}{}
		return nil
	}
	subject := fleet.Digest("")
	if k == manifestLinks {
		if content, err := c.content(d); err == nil {
			subject = content.subject
		}
	}
	gone, err := c.removeOld(linkPath(repo, k, d.Hex()))
	if err != nil {
		return err
	}
	if !gone {
		c.named[d] = struct{}{}
		return nil
	}
	c.stats.Links++
	if subject != "" {
		return ignoreNotExist(c.disk.root.Remove(referrerPath(repo, subject, d)))
	}
	return nil
}

func (c *collection) dropBlobs() error {
	blobs, err := c.disk.list(blobDir)
	if err != nil {
		return err
	}
	for _, b := range blobs {
		d := fleet.Digest("sha256:" + b.Name())
		info, err := b.Info()
		if err != nil {
			continue // gone meanwhile
		}
		_, named := c.named[d]
		if _, reached := c.marked[d]; reached || named {
			c.stats.Kept++
			continue
		}
		gone, err := c.removeBlob(d)
		if err != nil {
			return err
		}
		if !gone {
			c.stats.Kept++
			continue
		}
		c.stats.Blobs++
		c.stats.Bytes += info.Size()
	}
	return c.disk.syncDir(blobDir)
}

// removeBlob looks once more, with all pushes held, whether a repository has linked the blob meanwhile.
func (c *collection) removeBlob(d fleet.Digest) (bool, error) {
	if err := c.ctx.Err(); err != nil {
		return false, err
	}
	c.sweep.Lock()
	defer c.sweep.Unlock()
	info, err := c.disk.root.Lstat(blobPath(d))
	if err != nil || !info.ModTime().Before(c.before) {
		return false, ignoreNotExist(err)
	}
	for _, repo := range c.repos {
		if c.disk.linked(repo, blobLinks, d) || c.disk.linked(repo, manifestLinks, d) {
			return false, nil
		}
	}
	err = c.disk.root.Remove(blobPath(d))
	return err == nil, ignoreNotExist(err)
}
