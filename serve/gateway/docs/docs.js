// The contract, readable, with forms to try it on this very service.
SwaggerUIBundle({
  url: "../openapi.yaml",
  dom_id: "#contract",
  deepLinking: true,
  validatorUrl: null, // or it would ask a server elsewhere
});
