"""Images: from files to arrays, and the seeded views of them."""
