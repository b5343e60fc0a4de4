"""The process that computes, and the client that talks to it. No Qt."""
