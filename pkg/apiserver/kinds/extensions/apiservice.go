package extensions

import (
	"fmt"

	"k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"

	"github.com/sextant-k8s/sextant/pkg/apiserver/kind"
)

// APIService is the row of apiservices.
func APIService() *kind.Def {
	return kind.Row(kind.Def{
		Kind: "APIService", Resource: "apiservices",
		Categories: []string{"api-extensions"},
		Prefix:     "apiregistration.k8s.io/apiservices",
		Subs:       []kind.Sub{{Name: "status", Aspect: &kind.Rules{Check: kind.Ask(checkServiceStatus)}}},
		Prepare:    kind.On(prepareService), Check: kind.Ask(checkService), NeedVersionOnUpdate: true,
		Columns: kind.Columns("Name Service Available Age"),
		Row:     kind.Of(serviceRow),
	}, kind.In[apiregistrationv1.APIService, apiregistrationv1.APIServiceList](apiregistrationv1.SchemeGroupVersion, defaultService))
}

func serviceRow(a *apiregistrationv1.APIService) []any {
	service, available := "Local", "Unknown"
	if s := a.Spec.Service; s != nil {
		service = s.Namespace + "/" + s.Name
	}
	for _, c := range a.Status.Conditions {
		if c.Type != apiregistrationv1.Available {
			continue
		}
		available = string(c.Status)
		if c.Status != apiregistrationv1.ConditionTrue {
			available = fmt.Sprintf("%s (%s)", c.Status, c.Reason)
		}
	}
	return []any{a.Name, service, available, kind.Age(a.CreationTimestamp)}
}

// defaultService fills in the port of the service.
func defaultService(a *apiregistrationv1.APIService) {
	if s := a.Spec.Service; s != nil && s.Port == nil {
		s.Port = new(int32(443))
	}
}

// prepareService makes a local service available from the start: nobody else would say so.
func prepareService(_ *kind.Op, a, old *apiregistrationv1.APIService) {
	if a.Spec.Service != nil || old != nil && old.Spec.Service == nil {
		return
	}
	a.Status.Conditions = []apiregistrationv1.APIServiceCondition{{
		Type: apiregistrationv1.Available, Status: apiregistrationv1.ConditionTrue, LastTransitionTime: metav1.Now(), Reason: "Local", Message: "Local APIServices are always available",
	}}
}

func checkService(_ *kind.Op, a, old *apiregistrationv1.APIService) field.ErrorList {
	want := a.Spec.Version + "." + a.Spec.Group
	errs := validation.ValidateObjectMeta(&a.ObjectMeta, false, func(name string, _ bool) []string {
		if name != want {
			return []string{fmt.Sprintf("must be `spec.version+\".\"+spec.group`: %q", want)}
		}
		return nil
	}, field.NewPath("metadata"))
	if old != nil {
		errs = append(errs, validation.ValidateObjectMetaUpdate(&a.ObjectMeta, &old.ObjectMeta, field.NewPath("metadata"))...)
	}
	at, s := field.NewPath("spec"), &a.Spec
	if s.Group != "" {
		for _, msg := range utilvalidation.IsDNS1123Subdomain(s.Group) {
			errs = append(errs, field.Invalid(at.Child("group"), s.Group, msg))
		}
	}
	for _, msg := range utilvalidation.IsDNS1035Label(s.Version) {
		errs = append(errs, field.Invalid(at.Child("version"), s.Version, msg))
	}
	if s.GroupPriorityMinimum <= 0 || s.GroupPriorityMinimum > 20000 {
		errs = append(errs, field.Invalid(at.Child("groupPriorityMinimum"), s.GroupPriorityMinimum, "must be positive and less than 20000"))
	}
	if s.VersionPriority <= 0 || s.VersionPriority > 1000 {
		errs = append(errs, field.Invalid(at.Child("versionPriority"), s.VersionPriority, "must be positive and less than 1000"))
	}
	if s.Service == nil {
		if len(s.CABundle) != 0 {
			errs = append(errs, field.Invalid(at.Child("caBundle"), fmt.Sprintf("%d bytes", len(s.CABundle)), "local APIServices may not have a caBundle"))
		}
		if s.InsecureSkipTLSVerify {
			errs = append(errs, field.Invalid(at.Child("insecureSkipTLSVerify"), true, "local APIServices may not have insecureSkipTLSVerify"))
		}
		return errs
	}
	if s.Service.Namespace == "" {
		errs = append(errs, field.Required(at.Child("service", "namespace"), ""))
	}
	if s.Service.Name == "" {
		errs = append(errs, field.Required(at.Child("service", "name"), ""))
	}
	if p := s.Service.Port; p != nil {
		for _, msg := range utilvalidation.IsValidPortNum(int(*p)) {
			errs = append(errs, field.Invalid(at.Child("service", "port"), *p, "port is not valid: "+msg))
		}
	}
	if s.InsecureSkipTLSVerify && len(s.CABundle) > 0 {
		errs = append(errs, field.Invalid(at.Child("insecureSkipTLSVerify"), true, "may not be true if caBundle is present"))
	}
	return errs
}

func checkServiceStatus(_ *kind.Op, a, old *apiregistrationv1.APIService) field.ErrorList {
	return validation.ValidateObjectMetaUpdate(&a.ObjectMeta, &old.ObjectMeta, field.NewPath("metadata"))
}
