"""What reaches the app through nginx: raw requests, an app that writes down what it sees, and the judge of both."""
