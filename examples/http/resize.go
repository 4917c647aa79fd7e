// Resize an image over HTTP: go run resize.go photo.jpg out.webp
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
)

type problem struct {
	Code   string `json:"code"`
	Detail string `json:"detail"`
}

func resize(source, target string) error {
	url := os.Getenv("VIPSRV_URL")
	if url == "" {
		url = "http://127.0.0.1:8080"
	}
	image, err := os.Open(source)
	if err != nil {
		return err
	}
	defer image.Close()
	facts, err := image.Stat()
	if err != nil {
		return err
	}
	request, err := http.NewRequest("POST", url+"/resize?width=800&height=600&fit=inside&format=webp", image)
	if err != nil {
		return err
	}
	// With its length known, the server can refuse an image that is too large before it is sent.
	request.ContentLength = facts.Size()
	request.Header.Set("Content-Type", "application/octet-stream")
	if token := os.Getenv("VIPSRV_TOKEN"); token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		var refused problem
		if err := json.NewDecoder(response.Body).Decode(&refused); err != nil {
			return err
		}
		return fmt.Errorf("%s: %s", refused.Code, refused.Detail)
	}
	result, err := os.Create(target)
	if err != nil {
		return err
	}
	if _, err := io.Copy(result, response.Body); err != nil {
		return err
	}
	fmt.Println(response.Header.Get("Vipsrv-Result"))
	fmt.Println(response.Header.Get("Vipsrv-Ratio"), "times smaller")
	return result.Close()
}

func main() {
	log.SetFlags(0)
	if len(os.Args) != 3 {
		log.Fatal("usage: resize SOURCE TARGET")
	}
	if err := resize(os.Args[1], os.Args[2]); err != nil {
		log.Fatal(err)
	}
}
