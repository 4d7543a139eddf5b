package validate

import (
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/validation"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	netutils "k8s.io/utils/net"
)

// How much a slice may hold.
const (
	sliceEndpoints    = 1000
	slicePorts        = 20000
	endpointAddresses = 100
	endpointHints     = 8
)

// EndpointSlice answers what is wrong with an endpoint slice.
func EndpointSlice(s *discoveryv1.EndpointSlice) field.ErrorList {
	errs := validation.ValidateObjectMeta(&s.ObjectMeta, true, validation.NameIsDNSSubdomain, metadata)
	errs = append(errs, chosen(field.NewPath("addressType"), s.AddressType, discoveryv1.AddressTypeFQDN, discoveryv1.AddressTypeIPv4, discoveryv1.AddressTypeIPv6)...)
	at := field.NewPath("endpoints")
	if len(s.Endpoints) > sliceEndpoints {
		errs = append(errs, field.TooMany(at, len(s.Endpoints), sliceEndpoints))
	} else {
		for i := range s.Endpoints {
			errs = append(errs, endpoint(&s.Endpoints[i], s.AddressType, at.Index(i))...)
		}
	}
	return append(errs, slicePortList(s.Ports)...)
}

// EndpointSliceUpdate answers what is wrong with an endpoint slice in the place of old.
func EndpointSliceUpdate(s, old *discoveryv1.EndpointSlice) field.ErrorList {
	errs := append(common(&s.ObjectMeta, &old.ObjectMeta, true), EndpointSlice(s)...)
	return append(errs, validation.ValidateImmutableField(s.AddressType, old.AddressType, field.NewPath("addressType"))...)
}

func endpoint(e *discoveryv1.Endpoint, kind discoveryv1.AddressType, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	addresses := at.Child("addresses")
	switch n := len(e.Addresses); {
	case n == 0:
		errs = append(errs, field.Required(addresses, "must contain at least 1 address"))
	case n > endpointAddresses:
		errs = append(errs, field.TooMany(addresses, n, endpointAddresses))
	}
	for i, a := range e.Addresses {
		errs = append(errs, endpointAddress(a, kind, addresses.Index(i))...)
	}
	if e.NodeName != nil {
		errs = append(errs, wrong(at.Child("nodeName"), *e.NodeName, utilvalidation.IsDNS1123Subdomain(*e.NodeName))...)
	}
	errs = append(errs, metav1validation.ValidateLabels(e.DeprecatedTopology, at.Child("topology"))...)
	if e.Hostname != nil {
		errs = append(errs, wrong(at.Child("hostname"), *e.Hostname, utilvalidation.IsDNS1123Label(*e.Hostname))...)
	}
	if e.Hints != nil {
		var zones, nodes []string
		for _, z := range e.Hints.ForZones {
			zones = append(zones, z.Name)
		}
		for _, n := range e.Hints.ForNodes {
			nodes = append(nodes, n.Name)
		}
		errs = append(errs, hints(zones, at.Child("hints", "forZones"), utilvalidation.IsValidLabelValue)...)
		errs = append(errs, hints(nodes, at.Child("hints", "forNodes"), utilvalidation.IsDNS1123Subdomain)...)
	}
	return errs
}

func endpointAddress(a string, kind discoveryv1.AddressType, at *field.Path) field.ErrorList {
	switch kind {
	case discoveryv1.AddressTypeIPv4, discoveryv1.AddressTypeIPv6:
		if bad := utilvalidation.IsValidIPForLegacyField(at, a, false, nil); len(bad) > 0 {
			return bad
		}
		if netutils.IsIPv6String(a) != (kind == discoveryv1.AddressTypeIPv6) {
			return field.ErrorList{field.Invalid(at, a, "must be an "+string(kind)+" address")}
		}
		return outward(at, a)
	case discoveryv1.AddressTypeFQDN:
		return utilvalidation.IsFullyQualifiedDomainName(at, a)
	}
	return nil
}

func hints(names []string, at *field.Path, check func(string) []string) field.ErrorList {
	if len(names) > endpointHints {
		return field.ErrorList{field.TooMany(at, len(names), endpointHints)}
	}
	var errs field.ErrorList
	seen := map[string]bool{}
	for i, n := range names {
		name := at.Index(i).Child("name")
		if seen[n] {
			errs = append(errs, field.Duplicate(name, n))
		}
		seen[n] = true
		errs = append(errs, wrong(name, n, check(n))...)
	}
	return errs
}

func slicePortList(ports []discoveryv1.EndpointPort) field.ErrorList {
	at := field.NewPath("ports")
	if len(ports) > slicePorts {
		return field.ErrorList{field.TooMany(at, len(ports), slicePorts)}
	}
	var errs field.ErrorList
	seen := map[string]bool{}
	for i, p := range ports {
		at, name := at.Index(i), ""
		if p.Name != nil {
			name = *p.Name
		}
		if name != "" {
			errs = append(errs, wrong(at.Child("name"), name, utilvalidation.IsDNS1123Label(name))...)
		}
		if seen[name] {
			errs = append(errs, field.Duplicate(at.Child("name"), name))
		}
		seen[name] = true
		var protocol corev1.Protocol
		if p.Protocol != nil {
			protocol = *p.Protocol
		}
		errs = append(errs, transport(at.Child("protocol"), protocol)...)
		if p.AppProtocol != nil {
			errs = append(errs, qualified(at.Child("appProtocol"), *p.AppProtocol)...)
		}
	}
	return errs
}
