"""What edgeq reports: result types with their JSON, progress events and the bundle's card."""
