// The contract as a page, with forms that send requests to this service.
SwaggerUIBundle({
  url: "../openapi.yaml",
  dom_id: "#contract",
  deepLinking: true,
  validatorUrl: null, // Swagger UI would send the contract to validator.swagger.io
});
