//go:build e2e

package conformance

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	osexec "os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

var clients = []behaviour{
	{name: "Kubectl cluster-info should check if Kubernetes control plane services is included in cluster-info", test: func(w *world) {
		contains(regexp.MustCompile(`\x1b\[[0-9;]*m`).ReplaceAllString(w.kubectl("cluster-info"), ""), "Kubernetes control plane is running at")
	}},
	{name: "Kubectl describe should check if kubectl describe prints relevant information for rc and pods", test: kubectlDescribe},
	{name: "Kubectl expose should create services for rc", test: kubectlExpose},
	{name: "Kubectl label should update the label on a resource", test: kubectlLabel},
	{name: "Kubectl run pod and replace and patch it and server-side dry-run", test: kubectlRun},
	{name: "Kubectl version should check is all data is printed", test: func(w *world) {
		text := w.kubectl("version")
		contains(text, "Client Version:")
		contains(text, "Server Version:")
	}},
	{name: "Kubectl Proxy server should support proxy with --port 0 and --unix-socket", test: kubectlProxy},
	{name: "Kubectl Update Demo should create, scale and stop a replication controller", test: kubectlScale},
	{name: "Kubectl logs should be able to retrieve and filter logs", test: kubectlLogs},
	{name: "Kubectl api-versions should check if v1 is in available api versions", test: func(w *world) { contains("\n"+w.kubectl("api-versions")+"\n", "\nv1\n") }},
	{name: "Kubectl diff should find diff in Deployment", test: kubectlDiff},
	{name: "Kubectl Guestbook application: frontends and back ends find each other", test: kubectlGuestbook},
}

var instrumentation = []behaviour{
	{name: "Events API should ensure that an event can be fetched, patched, deleted, and listed", test: eventsOfGroup},
	{name: "Events should manage the lifecycle of an event, delete a collection of events", test: eventsOfCore},
}

var accounts = []behaviour{
	{name: "ServiceAccounts should mount an API token into pods", test: accountMounted},
	{name: "ServiceAccounts should mount projected service account token", test: accountProjected},
	{name: "ServiceAccounts should allow opting out of API token automount", test: accountOptsOut},
	{name: "ServiceAccounts should guarantee kube-root-ca.crt exist in any namespace", test: accountRootCA},
	{name: "ServiceAccounts should create a serviceAccountToken and ensure a successful TokenReview", test: accountReview},
	{name: "ServiceAccounts should run through the lifecycle of a ServiceAccount", test: operations(kind{name: "ServiceAccount", resource: "v1 serviceaccounts", namespaced: true, manifest: `{}`})},
	{name: "ServiceAccountIssuerDiscovery should support OIDC discovery of service account issuer", test: accountIssuer},
}

// kubectl runs stock kubectl in the namespace; its failure ends the row.
func (w *world) kubectl(args ...string) string {
	w.Helper()
	text, err := w.tryKubectl(args...)
	done(err)
	return text
}

func (w *world) command(ctx context.Context, args ...string) *osexec.Cmd {
	cmd := osexec.CommandContext(ctx, filepath.Join(root, "_out/tools/bin/kubectl"), append([]string{"--namespace", w.ns}, args...)...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+filepath.Join(root, "_out/admin.kubeconfig"), "KUBERC=off", "KUBECACHEDIR="+memory)
	cmd.WaitDelay = time.Second
	return cmd
}

func (w *world) tryKubectl(args ...string) (string, error) {
	limited, cancel := context.WithTimeout(ctx, 90*time.Second)
	defer cancel()
	text, err := w.command(limited, args...).CombinedOutput()
	if err != nil {
		err = fmt.Errorf("kubectl %v: %w: %s", args, err, text)
	}
	return strings.TrimSpace(string(text)), err
}

// apply makes objects of a manifest.
func (w *world) apply(manifest string) string {
	w.Helper()
	file := filepath.Join(w.TempDir(), fmt.Sprintf("%d.yaml", counter.Add(1)))
	done(os.WriteFile(file, []byte(manifest), 0o644))
	return w.kubectl("apply", "-f", file)
}

const controllerManifest = `{"apiVersion":"v1","kind":"ReplicationController","metadata":{"name":"agnhost-primary","labels":{"app":"agnhost","role":"primary"}},"spec":{"replicas":1,"selector":{"app":"agnhost","role":"primary"},
"template":{"metadata":{"labels":{"app":"agnhost","role":"primary"}},"spec":{"terminationGracePeriodSeconds":1,"containers":[{"name":"agnhost-primary","image":"registry.sextant.local/busybox:1","command":["tester","serve","-http","6379"],"ports":[{"name":"agnhost-server","containerPort":6379}]}]}}}}`

func (w *world) primary() string {
	w.Helper()
	w.apply(controllerManifest)
	w.kubectl("wait", "--for=create", "pod", "-l", "app=agnhost", "--timeout=30s")
	w.kubectl("wait", "--for=condition=Ready", "pod", "-l", "app=agnhost", "--timeout=60s")
	return w.podsOf("app=agnhost")[0].Name
}

func inOrder(text string, parts ...string) {
	for _, p := range parts {
		fields := strings.Fields(p)
		pattern := make([]string, len(fields))
		for i, f := range fields {
			pattern[i] = regexp.QuoteMeta(f)
		}
		at := regexp.MustCompile(strings.Join(pattern, `\s+`)).FindStringIndex(text)
		if at == nil {
			fatal("%q does not come in %s", p, text)
		}
		text = text[at[1]:]
	}
}

func kubectlDescribe(w *world) {
	name := w.primary()
	w.apply(`{"apiVersion":"v1","kind":"Service","metadata":{"name":"agnhost-primary","labels":{"app":"agnhost","role":"primary"}},"spec":{"ports":[{"port":6379,"targetPort":"agnhost-server"}],"selector":{"app":"agnhost","role":"primary"}}}`)
	w.endpoints("agnhost-primary", name)
	inOrder(w.kubectl("describe", "pod", name), "Name: "+name, "Namespace: "+w.ns, "Node:", "Labels: app=agnhost", "role=primary", "Annotations:", "Status: Running", "IP:", "Controlled By: ReplicationController/agnhost-primary",
		"Image: "+image, "State: Running", "QoS Class: BestEffort")
	inOrder(w.kubectl("describe", "rc", "agnhost-primary"), "Name: agnhost-primary", "Namespace: "+w.ns, "Selector: app=agnhost,role=primary", "Labels: app=agnhost", "role=primary", "Annotations:", "Replicas: 1 current / 1 desired", "Pods Status: 1 Running / 0 Waiting / 0 Succeeded / 0 Failed", "Pod Template:", "Image: "+image, "Events:")
	inOrder(w.kubectl("describe", "service", "agnhost-primary"), "Name: agnhost-primary", "Namespace: "+w.ns, "Labels: app=agnhost", "role=primary", "Annotations:", "Selector: app=agnhost,role=primary", "Type: ClusterIP", "IP:", "Port: <unset> 6379/TCP", "Endpoints:", "Session Affinity: None")
	inOrder(w.kubectl("describe", "node", w.node().Name), "Name: "+w.node().Name, "Labels:", "Annotations:", "CreationTimestamp:", "Conditions:", "Type", "Status", "LastHeartbeatTime", "LastTransitionTime", "Reason", "Message", "Addresses:", "Capacity:", "Kernel Version", "Container Runtime Version", "Kubelet Version", "Non-terminated Pods")
	inOrder(w.kubectl("describe", "namespace", w.ns), "Name: "+w.ns, "Labels:", "Annotations:", "Status: Active")
}

func kubectlExpose(w *world) {
	name := w.primary()
	w.kubectl("expose", "rc", "agnhost-primary", "--name=rm2", "--port=1234", "--target-port=6379")
	w.endpoints("rm2", name)
	w.kubectl("expose", "service", "rm2", "--name=rm3", "--port=2345", "--target-port=6379")
	w.endpoints("rm3", name)
	s := must(api.CoreV1().Services(w.ns).Get(ctx, "rm3", metav1.GetOptions{}))
	same("port", s.Spec.Ports[0].Port, 2345)
	same("target port", s.Spec.Ports[0].TargetPort.IntValue(), 6379)
}

func kubectlLabel(w *world) {
	w.ready(pod("pause", sleepScript))
	w.kubectl("label", "pods", "pause", "testing-label=testing-label-value")
	contains(w.kubectl("get", "pod", "pause", "-L", "testing-label"), "testing-label-value")
	w.kubectl("label", "pods", "pause", "testing-label-")
	if strings.Contains(w.kubectl("get", "pod", "pause", "-L", "testing-label"), "testing-label-value") {
		fatal("the label is still there")
	}
}

func kubectlRun(w *world) {
	w.kubectl("run", "e2e-pod", "--restart=Never", "--pod-running-timeout=2m0s", "--labels=run=e2e-pod", "--image="+image, "--", "sleep", "1000")
	p := w.isReady("e2e-pod")
	same("policy", p.Spec.RestartPolicy, corev1.RestartPolicyNever)
	same("image", p.Spec.Containers[0].Image, image)
	w.kubectl("patch", "pod", "e2e-pod", "-p", `{"spec":{"containers":[{"name":"e2e-pod","image":"`+pauseImage+`"}]}}`, "--dry-run=server")
	same("image", w.get("e2e-pod").Spec.Containers[0].Image, image)
	file := filepath.Join(w.TempDir(), "pod.json")
	text := strings.ReplaceAll(w.kubectl("get", "pod", "e2e-pod", "-o", "json"), `"image": "`+image+`"`, `"image": "`+pauseImage+`"`)
	done(os.WriteFile(file, []byte(text), 0o644))
	w.kubectl("replace", "-f", file)
	same("image", w.get("e2e-pod").Spec.Containers[0].Image, pauseImage)
}

func kubectlProxy(w *world) {
	limited, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	cmd := w.command(limited, "proxy", "-p", "0", "--disable-filter")
	out := must(cmd.StdoutPipe())
	done(cmd.Start())
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	buf := make([]byte, 128)
	n := must(out.Read(buf))
	port := regexp.MustCompile(`Starting to serve on 127.0.0.1:([0-9]+)`).FindStringSubmatch(string(buf[:n]))
	if port == nil {
		fatal("it says %q", buf[:n])
	}
	resp := must(http.Get("http://127.0.0.1:" + port[1] + "/api/"))
	contains(string(must(io.ReadAll(resp.Body))), `"v1"`)
	resp.Body.Close()

	socket := filepath.Join(w.TempDir(), "s")
	other := w.command(limited, "proxy", "--unix-socket="+socket)
	done(other.Start())
	defer func() { _ = other.Process.Kill(); _ = other.Wait() }()
	client := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}}
	w.until(20*time.Second, "the socket serves", func() error {
		resp, err := client.Get("http://localhost/api")
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		if err == nil {
			contains(string(text), `"v1"`)
		}
		return err
	})
}

func kubectlScale(w *world) {
	w.primary()
	names := func(want int) {
		w.until(startLimit, "replicas", func() error {
			text := w.kubectl("get", "pods", "-o", "template", `--template={{range.items}}{{.metadata.name}} {{end}}`, "-l", "app=agnhost")
			return differs("pods", len(strings.Fields(text)), want)
		})
		w.until(startLimit, "running", func() error {
			text := w.kubectl("get", "pods", "-l", "app=agnhost", "-o", "template", `--template={{range .items}}{{range .status.containerStatuses}}{{if (exists . "state" "running")}}true {{end}}{{end}}{{end}}`)
			return differs("running", len(strings.Fields(text)), want)
		})
	}
	names(1)
	w.kubectl("scale", "rc", "agnhost-primary", "--replicas=2", "--timeout=1m")
	names(2)
	w.kubectl("scale", "rc", "agnhost-primary", "--replicas=1", "--timeout=1m")
	names(1)
	w.kubectl("delete", "rc", "agnhost-primary", "--grace-period=0", "--force")
	w.count("app=agnhost", 0)
}

func kubectlLogs(w *world) {
	w.ready(pod("logs-generator", `i=0; while [ $i -lt 100 ]; do echo "GET /api/v1/namespaces/$i"; i=$((i+1)); sleep 0.1; done; sleep 1000`))
	w.says("logs-generator", "c", "namespaces/20", 30*time.Second)
	same("lines", len(strings.Split(w.kubectl("logs", "logs-generator", "c", "--tail=1"), "\n")), 1)
	same("bytes", len(w.kubectl("logs", "logs-generator", "--limit-bytes=1")), 1)
	stamped := strings.Fields(w.kubectl("logs", "logs-generator", "--tail=1", "--timestamps"))
	must(time.Parse(time.RFC3339Nano, stamped[0]))
	time.Sleep(2500 * time.Millisecond)
	recent := len(strings.Split(w.kubectl("logs", "logs-generator", "--since=1s"), "\n"))
	older := len(strings.Split(w.kubectl("logs", "logs-generator", "--since=24h"), "\n"))
	if recent >= older {
		fatal("%d lines of a second, %d of a day", recent, older)
	}
}

func kubectlDiff(w *world) {
	manifest := `{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"diff"},"spec":{"replicas":0,"selector":{"matchLabels":{"a":"b"}},"template":{"metadata":{"labels":{"a":"b"}},"spec":{"containers":[{"name":"c","image":"IMAGE"}]}}}}`
	w.apply(strings.Replace(manifest, "IMAGE", "one:1", 1))
	file := filepath.Join(w.TempDir(), "two.json")
	done(os.WriteFile(file, []byte(strings.Replace(manifest, "IMAGE", "two:2", 1)), 0o644))
	limited, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	cmd := w.command(limited, "diff", "-f", file)
	text, err := cmd.CombinedOutput()
	same("exit code of "+fmt.Sprint(err), cmd.ProcessState.ExitCode(), 1)
	contains(string(text), "-      - image: one:1")
	contains(string(text), "+      - image: two:2")
}

func kubectlGuestbook(w *world) {
	w.replicas("backend", 2)
	w.service("backend", map[string]string{"name": "backend"}, 6379, 8080)
	w.ready(pod("frontend", "while :; do tester fetch http://backend:6379/hostname; sleep 1; done"))
	w.says("frontend", "c", "backend-", 60*time.Second)
}

func eventsOfGroup(w *world) {
	events := api.EventsV1().Events(w.ns)
	must(events.Create(ctx, &eventsv1.Event{ObjectMeta: metav1.ObjectMeta{Name: "e", Labels: map[string]string{"l": "v"}}, Regarding: corev1.ObjectReference{Namespace: w.ns, Kind: "Pod", Name: "p"}, EventTime: metav1.NowMicro(),
		Note: "this is a test", Action: "Do", Reason: "Test", Type: "Normal", ReportingController: "test-controller", ReportingInstance: "test-node"}, metav1.CreateOptions{}))
	must(events.Patch(ctx, "e", types.StrategicMergePatchType, []byte(`{"note":"patched"}`), metav1.PatchOptions{}))
	e := must(events.Get(ctx, "e", metav1.GetOptions{}))
	same("note", e.Note, "patched")
	e.Series = &eventsv1.EventSeries{Count: 100, LastObservedTime: metav1.MicroTime{Time: time.Unix(1505828951, 0)}}
	same("series", must(events.Update(ctx, e, metav1.UpdateOptions{})).Series.Count, 100)
	same("listed", len(must(api.EventsV1().Events("").List(ctx, metav1.ListOptions{LabelSelector: "l=v"})).Items) > 0, true)
	same("message", must(api.CoreV1().Events(w.ns).Get(ctx, "e", metav1.GetOptions{})).Message, "patched")
	done(events.DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: "l=v"}))
	same("left", len(must(events.List(ctx, metav1.ListOptions{LabelSelector: "l=v"})).Items), 0)
}

func eventsOfCore(w *world) {
	events := api.CoreV1().Events(w.ns)
	for i := range 3 {
		must(events.Create(ctx, &corev1.Event{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("e%d", i), Labels: map[string]string{"l": "v"}}, Message: "this is a test", Reason: "Test", Type: "Normal", Count: 1,
			InvolvedObject: corev1.ObjectReference{Namespace: w.ns}}, metav1.CreateOptions{}))
	}
	must(events.Patch(ctx, "e0", types.StrategicMergePatchType, []byte(`{"message":"patched"}`), metav1.PatchOptions{}))
	e := must(events.Get(ctx, "e0", metav1.GetOptions{}))
	same("message", e.Message, "patched")
	e.Series = &corev1.EventSeries{Count: 100, LastObservedTime: metav1.MicroTime{Time: time.Unix(1505828951, 0)}}
	same("series", must(events.Update(ctx, e, metav1.UpdateOptions{})).Series.Count, 100)
	done(events.Delete(ctx, "e0", metav1.DeleteOptions{}))
	done(events.DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: "l=v"}))
	same("left", len(must(events.List(ctx, metav1.ListOptions{LabelSelector: "l=v"})).Items), 0)
}

const accountDir = "/var/run/secrets/kubernetes.io/serviceaccount"

func accountMounted(w *world) {
	w.ready(pod("mounted", sleepScript))
	same("namespace", w.sh("mounted", "cat "+accountDir+"/namespace"), w.ns)
	same("root", w.sh("mounted", "cat "+accountDir+"/ca.crt"), strings.TrimSpace(must(api.CoreV1().ConfigMaps(w.ns).Get(ctx, "kube-root-ca.crt", metav1.GetOptions{})).Data["ca.crt"]))
	review := must(api.AuthenticationV1().TokenReviews().Create(ctx, &authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: w.sh("mounted", "cat "+accountDir+"/token")}}, metav1.CreateOptions{}))
	same("authenticated", review.Status.Authenticated, true)
	same("user", review.Status.User.Username, "system:serviceaccount:"+w.ns+":default")
	same("pod", review.Status.User.Extra["authentication.kubernetes.io/pod-name"][0], "mounted")
}

func accountProjected(w *world) {
	p := pod("projected", shows("/etc/v/token")+"; stat -Lc %u:%g /etc/v/token", volume("v", corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token", ExpirationSeconds: ptr(int64(60 * 60))}}}}}))
	text := w.prints(p)
	contains(text, "-rw-r--r--\n0:0")
	for name, c := range map[string]struct {
		set  func(s *corev1.PodSecurityContext)
		want string
	}{
		"as-user":  {func(s *corev1.PodSecurityContext) { s.RunAsUser = ptr(int64(1000)) }, "-rw-------\n1000:0"},
		"as-group": {func(s *corev1.PodSecurityContext) { s.FSGroup = ptr(int64(10000)) }, "-rw-r-----\n0:10000"},
		"as-both":  {func(s *corev1.PodSecurityContext) { s.RunAsUser, s.FSGroup = ptr(int64(1000)), ptr(int64(10000)) }, "-rw-r-----\n0:10000"},
	} {
		one := p.DeepCopy()
		one.Name = name
		one.Spec.SecurityContext = &corev1.PodSecurityContext{}
		c.set(one.Spec.SecurityContext)
		contains(w.prints(one), c.want)
	}
}

func accountOptsOut(w *world) {
	sa := must(api.CoreV1().ServiceAccounts(w.ns).Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "nomount"}, AutomountServiceAccountToken: ptr(false)}, metav1.CreateOptions{}))
	for _, c := range []struct {
		account string
		pod     *bool
		mounted bool
	}{{"default", nil, true}, {sa.Name, nil, false}, {"default", ptr(false), false}, {sa.Name, ptr(true), true}} {
		p := w.create(pod(fmt.Sprintf("p%d", counter.Add(1)), "true", func(p *corev1.Pod) { p.Spec.ServiceAccountName, p.Spec.AutomountServiceAccountToken = c.account, c.pod }))
		same("mounted", len(p.Spec.Containers[0].VolumeMounts) > 0, c.mounted)
	}
}

func accountRootCA(w *world) {
	maps := api.CoreV1().ConfigMaps(w.ns)
	has := func() error {
		m, err := maps.Get(ctx, "kube-root-ca.crt", metav1.GetOptions{})
		if err == nil && !strings.Contains(m.Data["ca.crt"], "BEGIN CERTIFICATE") {
			err = errGone
		}
		return err
	}
	w.until(20*time.Second, "the root is there", has)
	done(maps.Delete(ctx, "kube-root-ca.crt", metav1.DeleteOptions{}))
	w.until(20*time.Second, "the root is made again", has)
	must(maps.Patch(ctx, "kube-root-ca.crt", types.MergePatchType, []byte(`{"data":{"ca.crt":""}}`), metav1.PatchOptions{}))
	w.until(20*time.Second, "the root is mended", has)
}

func accountReview(w *world) {
	must(api.CoreV1().ServiceAccounts(w.ns).Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "a"}}, metav1.CreateOptions{}))
	token := must(api.CoreV1().ServiceAccounts(w.ns).CreateToken(ctx, "a", &authenticationv1.TokenRequest{}, metav1.CreateOptions{})).Status.Token
	review := must(api.AuthenticationV1().TokenReviews().Create(ctx, &authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: token}}, metav1.CreateOptions{}))
	same("error", review.Status.Error, "")
	same("authenticated", review.Status.Authenticated, true)
}

func accountIssuer(w *world) {
	text := w.prints(pod("issuer", "for p in /.well-known/openid-configuration /openid/v1/jwks; do tester fetch -insecure -bearer "+accountDir+"/token https://kubernetes.default.svc$p; done; cat "+accountDir+"/token"))
	var discovery struct{ Issuer string }
	var keys jose.JSONWebKeySet
	decoder := json.NewDecoder(strings.NewReader(text))
	done(decoder.Decode(&discovery))
	done(decoder.Decode(&keys))
	signed := must(jwt.ParseSigned(strings.TrimSpace(text[decoder.InputOffset():]), []jose.SignatureAlgorithm{jose.RS256, jose.ES256}))
	same("keys", len(keys.Key(signed.Headers[0].KeyID)), 1)
	var claims jwt.Claims
	done(signed.Claims(keys.Key(signed.Headers[0].KeyID)[0].Key, &claims))
	same("issuer", claims.Issuer, discovery.Issuer)
	same("subject", claims.Subject, "system:serviceaccount:"+w.ns+":default")
}
