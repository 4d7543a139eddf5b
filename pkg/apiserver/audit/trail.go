package audit

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"sync"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	auditinternal "k8s.io/apiserver/pkg/apis/audit"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
	kaudit "k8s.io/apiserver/pkg/audit"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
)

type auditStage = auditinternal.Stage

// Trail is what is known of one request.
type Trail struct {
	room   *Room
	how    kaudit.RequestAuditConfig
	long   bool   // a watch or stream: its start is a stage of its own
	rich   bool   // the level keeps bodies
	sent   *taken // the request's body, nil if it is not kept
	sentAs string // its media type

	mu      sync.Mutex
	ev      auditv1.Event
	started bool
}

// maxAgent is how many bytes of a user agent are kept.
const maxAgent = 1024

func (t *Trail) event(r *http.Request, id string, begun time.Time, a authorizer.AttributesRecord) {
	t.ev = auditv1.Event{
		TypeMeta: metav1.TypeMeta{Kind: "Event", APIVersion: "audit.k8s.io/v1"},
		Level:    auditv1.Level(t.how.Level), AuditID: types.UID(id), RequestURI: r.URL.RequestURI(), Verb: a.Verb,
		UserAgent: r.UserAgent(), RequestReceivedTimestamp: metav1.NewMicroTime(begun),
	}
	if len(t.ev.UserAgent) > maxAgent {
		t.ev.UserAgent = t.ev.UserAgent[:maxAgent] + "...TRUNCATED"
	}
	for _, ip := range utilnet.SourceIPs(r) {
		t.ev.SourceIPs = append(t.ev.SourceIPs, ip.String())
	}
	if a.User != nil {
		t.ev.User = userInfo(a.User)
	}
	if a.ResourceRequest {
		t.ev.ObjectRef = &auditv1.ObjectReference{
			Namespace: a.Namespace, Name: a.Name, Resource: a.Resource, Subresource: a.Subresource, APIGroup: a.APIGroup, APIVersion: a.APIVersion,
		}
	}
}

func userInfo(u user.Info) authenticationv1.UserInfo {
	out := authenticationv1.UserInfo{Username: u.GetName(), UID: u.GetUID(), Groups: u.GetGroups()}
	for k, v := range u.GetExtra() {
		if out.Extra == nil {
			out.Extra = map[string]authenticationv1.ExtraValue{}
		}
		out.Extra[k] = v
	}
	return out
}

// Received tells that the request came in.
func (t *Trail) Received() error { return t.stage(auditv1.StageRequestReceived) }

// Impersonated tells whom the request acts as; constraint is the verb that allowed it for this request, "" for any.
func (t *Trail) Impersonated(u user.Info, constraint string) {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	info := userInfo(u)
	t.ev.ImpersonatedUser = &info
	if constraint != "" {
		t.ev.AuthenticationMetadata = &auditv1.AuthenticationMetadata{ImpersonationConstraint: constraint}
	}
}

// Annotate adds a fact under a key; the first value stays.
func (t *Trail) Annotate(key, value string) {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ev.Annotations == nil {
		t.ev.Annotations = map[string]string{}
	}
	if was, ok := t.ev.Annotations[key]; ok && was != value {
		slog.Warn("an audit annotation is set twice", "key", key, "audit", t.ev.AuditID)
		return
	}
	t.ev.Annotations[key] = value
}

// Decided tells what authorization said.
func (t *Trail) Decided(allowed bool, reason string) {
	if t == nil {
		return
	}
	decision := "forbid"
	if allowed {
		decision = "allow"
	}
	t.Annotate("authorization.k8s.io/decision", decision)
	t.Annotate("authorization.k8s.io/reason", reason)
}

// Sent tells which object the client sent, where the path does not say it.
func (t *Trail) Sent(m metav1.Object) {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	ref := t.ev.ObjectRef
	if ref == nil {
		return
	}
	if ref.Namespace == "" {
		ref.Namespace = m.GetNamespace()
	}
	if ref.Name == "" {
		ref.Name = m.GetName()
	}
	if ref.UID == "" {
		ref.UID = m.GetUID()
	}
	if ref.ResourceVersion == "" {
		ref.ResourceVersion = m.GetResourceVersion()
	}
}

// Unauthenticated tells that nobody knows who asks, and which credentials were tried, "" = none.
func (t *Trail) Unauthenticated(tried string) {
	if t == nil {
		return
	}
	message := "Authentication failed, no credentials provided"
	if tried != "" {
		message = "Authentication failed, attempted: " + tried
	}
	t.mu.Lock()
	t.started = true
	t.ev.ResponseStatus = &metav1.Status{Code: http.StatusUnauthorized, Message: message}
	t.mu.Unlock()
	_ = t.stage(auditv1.StageResponseStarted) // the request fails anyway
}

// responding tells that the answer's head goes out.
func (t *Trail) responding(code int) {
	t.mu.Lock()
	first := !t.started
	t.started = true
	if first {
		t.ev.ResponseStatus = &metav1.Status{Code: int32(code)}
	}
	t.mu.Unlock()
	if first && t.long {
		_ = t.stage(auditv1.StageResponseStarted) // too late to refuse
	}
}

// End writes the last stage. a is what Wrap answered; panicked tells that serving did not return.
func (t *Trail) End(a *Answer, panicked bool) {
	if t == nil {
		return
	}
	t.mu.Lock()
	t.ev.ResponseStatus = t.status(a)
	if panicked {
		t.ev.ResponseStatus = &metav1.Status{Code: http.StatusInternalServerError, Status: metav1.StatusFailure, Reason: metav1.StatusReasonInternalError, Message: "APIServer panic'd"}
	}
	if t.sent != nil {
		t.ev.RequestObject = object(t.sent, t.sentAs, "", t.how.OmitManagedFields)
	}
	if a.keep == keepAll {
		t.ev.ResponseObject = object(&a.body, a.Header().Get("Content-Type"), a.Header().Get("Content-Encoding"), t.how.OmitManagedFields)
	}
	t.mu.Unlock()
	stage := auditv1.StageResponseComplete
	if panicked {
		stage = auditv1.StagePanic
	}
	_ = t.stage(stage) // the answer is out
}

// status is what the answer says of itself: a Status in its words, else its code.
func (t *Trail) status(a *Answer) *metav1.Status {
	s := &metav1.Status{Code: int32(a.status())}
	if a.body.cut || a.body.buf.Len() == 0 {
		return s
	}
	raw := object(&a.body, a.Header().Get("Content-Type"), a.Header().Get("Content-Encoding"), false)
	if raw == nil {
		return s
	}
	var said metav1.Status
	if json.Unmarshal(raw.Raw, &said) != nil || said.Kind != "Status" || said.APIVersion != "v1" {
		return s
	}
	return &metav1.Status{Status: said.Status, Message: said.Message, Reason: said.Reason, Details: said.Details, Code: int32(a.status())}
}

// stage writes an event down; the error is of a sink that must not miss any.
func (t *Trail) stage(stage auditv1.Stage) error {
	if t == nil || t.omits(stage) {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ev.Stage = stage
	t.ev.StageTimestamp = metav1.NowMicro()
	if stage == auditv1.StageRequestReceived {
		t.ev.StageTimestamp = t.ev.RequestReceivedTimestamp
	}
	for _, s := range t.room.sinks {
		line, err := s.encode(&t.ev)
		if err != nil {
			slog.Error("an audit event cannot be written", "audit", t.ev.AuditID, "err", err)
			continue
		}
		if err := s.put(line, stage); err != nil {
			return err
		}
	}
	return nil
}

// unknown is JSON as an event holds it.
func unknown(raw []byte) *runtime.Unknown {
	return &runtime.Unknown{Raw: raw, ContentType: runtime.ContentTypeJSON}
}
