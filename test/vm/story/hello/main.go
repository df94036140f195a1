// Command hello is the program that the guest story is about.
package main

import "fmt"

func main() { fmt.Println("hello") }
