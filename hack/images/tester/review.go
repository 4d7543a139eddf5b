package main

import (
	"encoding/json"
	"net/http"
	"strings"
)

// object is what stands in JSON, as far as this server looks at it.
type object = map[string]any

// review answers an admission review by its path: /review/deny denies, /review/<name> adds data.<name>: yes.
func review(w http.ResponseWriter, r *http.Request) {
	var in struct {
		APIVersion string `json:"apiVersion"`
		Request    struct {
			UID string `json:"uid"`
		} `json:"request"`
	}
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	answer := object{"uid": in.Request.UID, "allowed": true}
	if name := strings.TrimPrefix(r.URL.Path, "/review/"); name == "deny" {
		answer["allowed"] = false
		answer["status"] = object{"message": "the tester denies it", "reason": "Forbidden", "code": 403}
	} else {
		patch, err := json.Marshal([]object{{"op": "add", "path": "/data/" + name, "value": "yes"}})
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		answer["patchType"], answer["patch"] = "JSONPatch", patch
	}
	reply(w, object{"apiVersion": in.APIVersion, "kind": "AdmissionReview", "response": answer})
}

// convert answers a conversion review: the version is set, and spec.host:port becomes or is made of spec.hostPort.
func convert(w http.ResponseWriter, r *http.Request) {
	var in struct {
		APIVersion string `json:"apiVersion"`
		Request    struct {
			UID     string   `json:"uid"`
			Desired string   `json:"desiredAPIVersion"`
			Objects []object `json:"objects"`
		} `json:"request"`
	}
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	for _, o := range in.Request.Objects {
		o["apiVersion"] = in.Request.Desired
		if both, ok := o["hostPort"].(string); ok && strings.HasSuffix(in.Request.Desired, "/v2") {
			o["host"], o["port"], _ = strings.Cut(both, ":")
			delete(o, "hostPort")
		}
		host, ok := o["host"].(string)
		if port, is := o["port"].(string); ok && is && strings.HasSuffix(in.Request.Desired, "/v1") {
			o["hostPort"] = host + ":" + port
			delete(o, "host")
			delete(o, "port")
		}
	}
	reply(w, object{"apiVersion": in.APIVersion, "kind": "ConversionReview", "response": object{
		"uid": in.Request.UID, "convertedObjects": in.Request.Objects, "result": object{"status": "Success"},
	}})
}

func reply(w http.ResponseWriter, answer object) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(answer)
}
