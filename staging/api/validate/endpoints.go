package validate

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/validation"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Endpoints answers what is wrong with endpoints.
func Endpoints(e *corev1.Endpoints) field.ErrorList {
	errs := validation.ValidateObjectMeta(&e.ObjectMeta, true, validation.NameIsDNSSubdomain, metadata)
	for i, s := range e.Subsets {
		at := field.NewPath("subsets").Index(i)
		if len(s.Addresses)+len(s.NotReadyAddresses) == 0 {
			errs = append(errs, field.Required(at, "must specify `addresses` or `notReadyAddresses`"))
		}
		for j, a := range s.Addresses {
			errs = append(errs, subsetAddress(a, at.Child("addresses").Index(j))...)
		}
		for j, a := range s.NotReadyAddresses {
			errs = append(errs, subsetAddress(a, at.Child("notReadyAddresses").Index(j))...)
		}
		for j, p := range s.Ports {
			errs = append(errs, subsetPort(p, len(s.Ports) > 1, at.Child("ports").Index(j))...)
		}
	}
	return errs
}

// EndpointsUpdate answers what is wrong with endpoints in the place of old.
func EndpointsUpdate(e, old *corev1.Endpoints) field.ErrorList {
	errs := common(&e.ObjectMeta, &old.ObjectMeta, true)
	errs = append(errs, validation.ValidateObjectMetaUpdate(&e.ObjectMeta, &old.ObjectMeta, metadata)...)
	return append(errs, Endpoints(e)...)
}

func subsetAddress(a corev1.EndpointAddress, at *field.Path) field.ErrorList {
	errs := utilvalidation.IsValidIPForLegacyField(at.Child("ip"), a.IP, false, nil)
	if a.Hostname != "" {
		errs = append(errs, wrong(at.Child("hostname"), a.Hostname, utilvalidation.IsDNS1123Label(a.Hostname))...)
	}
	if a.NodeName != nil {
		errs = append(errs, wrong(at.Child("nodeName"), *a.NodeName, utilvalidation.IsDNS1123Subdomain(*a.NodeName))...)
	}
	return append(errs, outward(at.Child("ip"), a.IP)...)
}

func subsetPort(p corev1.EndpointPort, named bool, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	switch {
	case p.Name == "" && named:
		errs = append(errs, field.Required(at.Child("name"), ""))
	case p.Name != "":
		errs = append(errs, wrong(at.Child("name"), p.Name, utilvalidation.IsDNS1123Label(p.Name))...)
	}
	errs = append(errs, wrong(at.Child("port"), p.Port, utilvalidation.IsValidPortNum(int(p.Port)))...)
	errs = append(errs, transport(at.Child("protocol"), p.Protocol)...)
	if p.AppProtocol != nil {
		errs = append(errs, qualified(at.Child("appProtocol"), *p.AppProtocol)...)
	}
	return errs
}
