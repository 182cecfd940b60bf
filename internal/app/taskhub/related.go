package taskhub

import (
	"context"
	"strings"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/skerry-dev/skerry/api/v1alpha1"
)

// tasksWhere returns the Tasks that are not finished and that want holds of: what changes elsewhere does not
// concern one that is over.
func (r *reconciler) tasksWhere(ctx context.Context, want func(*v1alpha1.TaskWork) bool, opts ...client.ListOption) []reconcile.Request {
	var tasks v1alpha1.TaskList
	if err := r.host.Client.List(ctx, &tasks, opts...); err != nil {
		r.host.Log.Error("list tasks", "error", err)
		return nil
	}
	var out []reconcile.Request
	for i := range tasks.Items {
		if t := &tasks.Items[i]; t.Status.FinishedAt == nil && want(&t.Spec.Work) {
			out = append(out, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(t)})
		}
	}
	return out
}

func (r *reconciler) cronTasksWhere(ctx context.Context, want func(*v1alpha1.TaskWork) bool, opts ...client.ListOption) []reconcile.Request {
	var tasks v1alpha1.CronTaskList
	if err := r.host.Client.List(ctx, &tasks, opts...); err != nil {
		r.host.Log.Error("list crontasks", "error", err)
		return nil
	}
	var out []reconcile.Request
	for i := range tasks.Items {
		if want(&tasks.Items[i].Spec.Work) {
			out = append(out, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&tasks.Items[i])})
		}
	}
	return out
}

func anyWork(*v1alpha1.TaskWork) bool { return true }

func ofApp(name string) func(*v1alpha1.TaskWork) bool {
	return func(w *v1alpha1.TaskWork) bool { return w.App == name }
}

func ofRepository(name string) func(*v1alpha1.TaskWork) bool {
	return func(w *v1alpha1.TaskWork) bool {
		if w.Source == nil {
			return false
		}
		end := strings.IndexAny(w.Source.Bundle, ":@")
		return end >= 0 && w.Source.Bundle[:end] == name
	}
}

func (r *reconciler) allTasks(ctx context.Context, _ client.Object) []reconcile.Request {
	return r.tasksWhere(ctx, anyWork)
}

func (r *reconciler) tasksOfApp(ctx context.Context, a client.Object) []reconcile.Request {
	return r.tasksWhere(ctx, ofApp(a.GetName()), client.InNamespace(a.GetNamespace()))
}

func (r *reconciler) tasksOfRepository(ctx context.Context, key types.NamespacedName) []reconcile.Request {
	return r.tasksWhere(ctx, ofRepository(key.Name), client.InNamespace(key.Namespace))
}

func (r *reconciler) allCronTasks(ctx context.Context, _ client.Object) []reconcile.Request {
	return r.cronTasksWhere(ctx, anyWork)
}

func (r *reconciler) cronTasksOfApp(ctx context.Context, a client.Object) []reconcile.Request {
	return r.cronTasksWhere(ctx, ofApp(a.GetName()), client.InNamespace(a.GetNamespace()))
}

func (r *reconciler) cronTasksOfRepository(ctx context.Context, key types.NamespacedName) []reconcile.Request {
	return r.cronTasksWhere(ctx, ofRepository(key.Name), client.InNamespace(key.Namespace))
}

// repositoryKey is a repository of the registry as a key of notices.
func repositoryKey(repository string) types.NamespacedName {
	namespace, name, _ := strings.Cut(repository, "/")
	return types.NamespacedName{Namespace: namespace, Name: name}
}
